"""The router picks by the question; the measures of continual learning are those of their papers."""

import numpy as np
import pytest

from dlr_core.skills import Router, measures, question_features


def cell(right: int, of: int = 10) -> np.ndarray:
    return np.array([1.0] * right + [0.0] * (of - right))


def test_the_measures_of_a_matrix_by_hand() -> None:
    found = measures([[cell(8), None, None], [cell(9), cell(6), None], [cell(5), cell(7), cell(4)]])
    assert found["matrix"] == [[0.8, None, None], [0.9, 0.6, None], [0.5, 0.7, 0.4]]
    assert found["average"] == pytest.approx((0.5 + 0.7 + 0.4) / 3)
    assert found["backward_transfer"] == pytest.approx(((0.5 - 0.8) + (0.7 - 0.6)) / 2)
    assert found["forgetting"] == pytest.approx(((0.9 - 0.5) + (0.6 - 0.7)) / 2)
    low, high = found["backward_transfer_ci"]
    assert low < found["backward_transfer"] < high


def test_what_does_not_change_is_not_forgotten() -> None:
    found = measures([[cell(8), cell(0)], [cell(8), cell(3)]])
    assert found["backward_transfer"] == found["forgetting"] == 0.0
    assert found["backward_transfer_ci"] == [0.0, 0.0]


def test_a_matrix_with_a_needed_cell_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="task 0 was not measured after stage 1"):
        measures([[cell(8), None], [None, cell(3)]])


def test_the_router_scales_by_the_spread_within_skills() -> None:
    """The first coordinate is loud and tells nothing, the second is quiet and tells everything."""
    rng = np.random.default_rng(0)

    def questions(kind: int, count: int) -> np.ndarray:
        return np.stack([rng.normal(0, 50, count), rng.normal(kind, 0.1, count), np.zeros(count)], 1)

    router = Router()
    for kind in range(3):
        router.add(questions(kind, 200))
    for kind in range(3):
        assert (router.route(questions(kind, 200)) == kind).mean() > 0.99
    assert set(router.route(questions(2, 50), skills=2)) == {1}


def test_a_question_has_the_same_features_alone_and_in_a_batch(tiny_decoder) -> None:
    questions = ["How are you?", "What is the sum of twelve and thirteen?", "And?"]
    together = question_features(tiny_decoder, questions, batch=2)
    alone = np.concatenate([question_features(tiny_decoder, [text]) for text in questions])
    assert together.shape == (3, 2 * tiny_decoder.hidden_size)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
