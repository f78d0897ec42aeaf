"""What trained latents are compared with."""

import numpy as np
import pytest
from dlr_plugins.controls.mean import Mean
from dlr_plugins.controls.random import Random
from dlr_plugins.controls.shuffled import Shuffled
from dlr_plugins.controls.zero import Zero

CONTROLS = [Mean, Random, Shuffled, Zero]


def trained(scale: float = 0.2, questions: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    per_latent = np.linspace(0.1, 1.0, 4)[None, :, None]
    return np.tanh(scale * per_latent * rng.standard_normal((questions, 4, 16))).astype(np.float32)


def rms(latents: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(latents.astype(np.float64)).mean(-1))


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_keeps_shape_type_and_box_and_leaves_its_input_alone(control: type) -> None:
    latents = trained(3.0)
    before = latents.copy()
    made = control()(latents, np.random.default_rng(1))
    assert made.shape == latents.shape
    assert made.dtype == latents.dtype
    assert np.abs(made).max() <= 1
    assert np.array_equal(latents, before)
    assert not np.shares_memory(made, latents)
    made[:] = 0  # writable


@pytest.mark.parametrize("control", CONTROLS)
def test_the_same_generator_gives_the_same_control(control: type) -> None:
    one, two = (control()(trained(), np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one, two)


def test_zero_is_the_anchor_alone() -> None:
    assert not Zero()(trained(), np.random.default_rng(1)).any()


def test_random_latents_have_the_trained_rms_latent_by_latent() -> None:
    latents = trained()
    made = Random()(latents, np.random.default_rng(1))
    np.testing.assert_allclose(rms(made), rms(latents), rtol=1e-4)
    assert not Random()(np.zeros_like(latents), np.random.default_rng(1)).round(6).any()


def test_random_latents_have_the_trained_rms_near_the_walls_of_the_box_too() -> None:
    latents = trained(3.0)
    assert rms(latents).max() > 0.85
    np.testing.assert_allclose(rms(Random()(latents, np.random.default_rng(1))), rms(latents), rtol=0.03)


def test_random_latents_are_fresh_and_isotropic() -> None:
    latents = np.broadcast_to(trained(questions=1), (2000, 4, 16)).astype(np.float32)
    made = Random()(latents, np.random.default_rng(1))
    assert not np.array_equal(made, Random()(latents, np.random.default_rng(2)))
    unit = made / rms(made)[..., None]
    assert np.abs(unit.mean(0)).max() < 5 / np.sqrt(2000)
    covariance = np.einsum("nti,ntj->tij", unit, unit) / 2000
    assert np.abs(covariance - np.eye(16)).max() < 0.15


@pytest.mark.parametrize("questions", [2, 3, 40])
def test_shuffled_gives_every_question_another_ones_latents_and_each_once(questions: int) -> None:
    latents = trained(questions=questions)
    for seed in range(10):
        made = Shuffled()(latents, np.random.default_rng(seed))
        source = [next(n for n in range(questions) if np.array_equal(row, latents[n])) for row in made]
        assert sorted(source) == list(range(questions))
        assert all(n != row for row, n in enumerate(source))


def test_shuffled_orders_differ_between_generators() -> None:
    one, two = (Shuffled()(trained(), np.random.default_rng(seed)) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_mean_is_the_average_latent_for_every_question() -> None:
    latents = trained()
    made = Mean()(latents, np.random.default_rng(1))
    for row in made:
        np.testing.assert_allclose(row, latents.mean(0), rtol=1e-6)
