"""Whatever environments are given: it works, or it is refused with one of our own errors and changes nothing."""

import gymnasium
import numpy as np
import pytest
import torch
from attacks import spoilt
from hostile import ACTIONS, JUNK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlr_core.errors import ActionError, ConfigError, DLRError

FEW = settings(max_examples=80, deadline=None, database=None, suppress_health_check=[*HealthCheck])
SIZES = {"num_latents": 2, "latent_dim": 4, "max_new_tokens": 2}


@pytest.fixture(scope="module")
def common(tiny_decoder, gsm8k_file):
    return {"decoder": tiny_decoder, "task_kwargs": {"path": str(gsm8k_file)}, **SIZES}


@pytest.fixture(scope="module")
def envs(common):
    vector = gymnasium.make_vec("dlr/GSM8K-v0", num_envs=2, **common)
    return gymnasium.make("dlr/GSM8K-v0", disable_env_checker=True, **common), vector


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("batched", [False, True])
def test_an_action_that_is_none_is_refused_and_the_episode_goes_on(kind, batched, envs):
    env, shape = envs[batched], (2, 8) if batched else (8,)
    good = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    env.reset(seed=0)
    if kind == "huge":  # finite: it is clipped
        assert np.all(env.step(spoilt(kind, good, 1))[2])
        return
    for seed in range(3):
        with pytest.raises(ActionError):
            env.step(spoilt(kind, good, seed))
    assert np.all(env.step(good)[2])


def test_a_step_before_the_first_reset_is_refused(common):
    env = gymnasium.make_vec("dlr/GSM8K-v0", num_envs=2, **common)
    with pytest.raises(ActionError, match="expected reset: no episode has begun"):
        env.step(np.zeros((2, 8), np.float32))


@FEW
@given(st.booleans(), JUNK, JUNK | st.dictionaries(st.sampled_from(["index", "group_size", "reset_mask"]), JUNK))
def test_a_reset_works_or_is_refused(envs, batched, seed, options):
    try:
        envs[batched].reset(seed=seed, options=options)
    except (DLRError, gymnasium.error.Error):
        envs[batched].reset(seed=0)


def test_a_refused_reset_changes_nothing(envs):
    env = envs[1]
    first = env.reset(seed=3)[0]
    actions = np.full((2, 8), 0.5, np.float32)
    expected = env.step(actions)[0]
    env.reset(seed=3)
    masks = [{"reset_mask": mask} for mask in ([[1], [1, 2]], "x", None, [True, False], {})]
    for options in (*masks, {"group_size": 3}, {"index": [0, "x"]}, {"index": [0]}, {"index": 3}, 7):
        with pytest.raises(ConfigError):
            env.reset(seed=9, options=options)
    for seed in (-1, "x", 1.5, [1, 2, 3], [None, -1], True):
        with pytest.raises(ConfigError, match="seed: "):
            env.reset(seed=seed)
    np.testing.assert_array_equal(env.step(actions)[0], expected)
    np.testing.assert_array_equal(env.reset(seed=np.int64(3))[0], first)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"num_latent": 3}, "no argument named 'num_latent'; did you mean 'num_latents'?"),
        ({"num_latents": 0}, "num_latents: expected a whole number of at least 1, got 0"),
        ({"latent_dim": 2.0}, "latent_dim: expected a whole number"),
        ({"num_latents": "3"}, "num_latents: expected a whole number"),
        ({"num_latents": True}, "num_latents: expected a whole number"),
        ({"latents_per_step": 0}, "latents_per_step: expected a whole number"),
        ({"latents_per_step": 3}, "latents_per_step: expected a divisor of 2, got 3"),
        ({"temperature": float("nan")}, "temperature: expected a finite number"),
        ({"temperature": "hot"}, "temperature: expected a finite number"),
        ({"max_new_tokens": None}, "max_new_tokens: expected a whole number"),
        ({"max_new_tokens": 10**6}, None),
        ({"split": ["train"]}, "expected a split"),
        ({"space": {"chart": 3}}, "space 'kv': chart: "),
        ({"space": 3}, "space: expected a name, a table with a name, or a space, got 3"),
        ({"space": {"name": 3}}, "space: expected a name, got 3"),
        ({"reward": {"weight": 3}}, "reward: expected a name, got None"),
        ({"reward": 3}, "reward: expected a name, a table with a name, or a reward"),
        ({"decoder": 3}, "decoder: expected a name, a table with a name, or a decoder"),
        ({"decoder": {"modle": "x"}}, "did you mean 'model'?"),
        ({"decoder": {"name": ["hf"]}}, "decoder: expected a name"),
        ({"task": 3}, "task: expected a name, got 3"),
        ({"task_kwargs": 3}, "task 'gsm8k': expected a table of options, got 3"),
        ({"task_kwargs": {"path": "~no-such-user/x"}}, "cannot read task.path"),
    ],
)
def test_a_keyword_argument_that_is_wrong_is_named(kwargs, expected, common):
    if expected is None:
        gymnasium.make("dlr/GSM8K-v0", disable_env_checker=True, **{**common, **kwargs})
        return
    with pytest.raises(DLRError) as caught:
        gymnasium.make("dlr/GSM8K-v0", disable_env_checker=True, **{**common, **kwargs})
    assert expected in str(caught.value)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", 2**40, None])
def test_a_number_of_environments_that_is_none_is_refused(count, common):
    with pytest.raises((ConfigError, gymnasium.error.Error)):
        gymnasium.make_vec("dlr/GSM8K-v0", num_envs=count, **common)


def test_a_tensor_is_an_action_as_long_as_it_has_no_gradient(envs):
    envs[0].reset(seed=0)
    assert envs[0].step(torch.zeros(8))[2]
