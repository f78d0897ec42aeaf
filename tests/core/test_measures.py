"""Diversity of latents and quality of a scorer, against closed forms."""

import math

import pytest
import torch

from dlr_core.calibration import ScorerMonitor, auroc, calibration_error
from dlr_core.diversity import diversity, effective_rank


def test_effective_rank_counts_equally_strong_directions() -> None:
    assert effective_rank(torch.ones(5, 4)) == 1.0
    cross = torch.cat([torch.eye(3), -torch.eye(3)])
    assert effective_rank(cross) == pytest.approx(3.0, rel=1e-5)
    line = torch.linspace(-1, 1, 7)[:, None] * torch.ones(1, 4)
    assert effective_rank(line) == pytest.approx(1.0, rel=1e-4)


def test_distances_are_root_mean_squares_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.rand(3, 5, 2, 4, generator=generator) * 2 - 1
    flat = latents.flatten(2)
    within = [(flat[b, i] - flat[b, j]).square().mean() for b in range(3) for i in range(5) for j in range(5) if i != j]
    means = flat.mean(1)
    between = [(means[i] - means[j]).square().mean() for i in range(3) for j in range(3) if i != j]
    found = diversity(latents)
    assert found["latent_distance"] == pytest.approx(math.sqrt(sum(map(float, within)) / len(within)), rel=1e-5)
    assert found["question_distance"] == pytest.approx(math.sqrt(sum(map(float, between)) / len(between)), rel=1e-5)


def test_chains_that_ignore_the_question_have_no_question_distance() -> None:
    latents = torch.rand(1, 5, 2, 4).expand(3, -1, -1, -1)
    assert diversity(latents)["question_distance"] == 0.0
    assert diversity(latents)["latent_distance"] > 0.1


def test_coherence_is_the_cosine_of_neighbours() -> None:
    chain = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    found = diversity(chain.expand(2, 2, -1, -1))["coherence"]
    assert found == pytest.approx((math.sqrt(0.5) - 1.0) / 2, rel=1e-5)
    assert diversity(torch.rand(2, 2, 1, 4))["coherence"] == 1.0


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    score, right = torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert auroc(score, right, torch.ones(4)) == pytest.approx(3.5 / 4)
    assert auroc(-score, right, torch.ones(4)) == pytest.approx(0.5 / 4)
    assert auroc(score, torch.ones(4), torch.ones(4)) is None
    weighted = auroc(score, right, torch.tensor([3.0, 1.0, 1.0, 1.0]))
    assert weighted == pytest.approx((3 + 3 + 0.5 + 1) / 8)


def test_calibration_error_is_zero_for_true_rates_and_the_gap_for_a_shift() -> None:
    predicted = torch.tensor([0.25] * 4 + [0.75] * 4)
    reward = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])
    assert calibration_error(predicted, reward, torch.ones(8), bins=2) == pytest.approx(0.0)
    assert calibration_error(predicted + 0.1, reward, torch.ones(8), bins=2) == pytest.approx(0.1, rel=1e-4)


def test_a_selected_sample_tells_of_all_chains() -> None:
    """A filter that keeps what it likes would look better or worse than it is, were the choice not weighed out."""
    generator = torch.Generator().manual_seed(0)
    q = torch.rand(40_000, generator=generator)
    correct = (torch.rand(40_000, generator=generator) < 0.2 + 0.6 * q).float()
    truth = auroc(q[:4000], correct[:4000], torch.ones(4000))
    inclusion = torch.where(q > 0.6, 0.95, 0.03)
    kept = torch.rand(40_000, generator=generator) < inclusion
    monitor = ScorerMonitor(window=5000)
    logs = monitor.add(q[kept], correct[kept], correct[kept], inclusion[kept])
    plain = auroc(monitor.rows_N4[:, 0], monitor.rows_N4[:, 2], torch.ones(len(monitor.rows_N4)))
    assert logs["scorer_auroc"] == pytest.approx(truth, abs=0.03)
    assert plain < truth - 0.04
    assert logs["scorer_calibration"] > 0.05


def test_the_window_keeps_the_newest_and_can_be_restored() -> None:
    monitor = ScorerMonitor(window=4)
    for value in range(3):
        column = torch.full((2,), float(value))
        assert "scorer_auroc" not in monitor.add(column, column, torch.ones(2), torch.ones(2))
    assert monitor.rows_N4[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0]
    again = ScorerMonitor(window=4)
    again.restore(monitor.state())
    assert torch.equal(again.rows_N4, monitor.rows_N4)
