"""The contrastive objectives `supcon` and `uniformity`, by hand and by slow loops."""

import math

import pytest
import torch
from dlr_plugins.contrastive.supcon import SupCon, labels, supcon
from dlr_plugins.contrastive.uniformity import Uniformity, uniformity


def slow_supcon(scores: list[list[float]], label: list[int], correct: list[float]) -> float:
    terms = []
    for a in range(len(label)):
        positives = [p for p in range(len(label)) if p != a and label[p] == label[a] and correct[p] and correct[a]]
        if positives:
            total = sum(math.exp(scores[a][n]) for n in range(len(label)) if n != a)
            terms.append(-sum(math.log(math.exp(scores[a][p]) / total) for p in positives) / len(positives))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_supcon_is_what_slow_loops_compute(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    label = labels(["a", "b", "a", "c"], 2)
    assert label.tolist() == [0, 0, 1, 1, 0, 0, 2, 2]
    correct = (torch.rand(8, generator=generator) < 0.6).double()
    expected = slow_supcon(scores.tolist(), label.tolist(), correct.tolist())
    assert float(supcon(scores, label, correct)) == pytest.approx(expected, abs=1e-12)


def test_supcon_of_two_equal_chains_and_a_stranger_by_hand() -> None:
    scores = torch.tensor([[9.0, 2.0, 1.0], [2.0, 9.0, 0.0], [1.0, 0.0, 9.0]], requires_grad=True)
    loss = supcon(scores, torch.tensor([0, 0, 1]), torch.tensor([1.0, 1.0, 1.0]))
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    assert float(loss.detach()) == pytest.approx(expected)
    loss.backward()
    assert scores.grad[0, 1] < 0 < scores.grad[0, 2]
    assert not scores.grad.diagonal().any()


def test_without_a_pair_of_successes_supcon_is_zero_with_zero_gradient() -> None:
    scores = torch.randn(3, 3, requires_grad=True)
    loss = supcon(scores, torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.0, 1.0]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not scores.grad.any()


def test_uniformity_by_hand() -> None:
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert float(uniformity(opposite, 2.0)) == pytest.approx(-8.0)
    equal = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert float(uniformity(equal, 2.0)) == pytest.approx(0.0)
    both = torch.cat([opposite, equal])
    assert float(uniformity(both, 2.0)) == pytest.approx(-4.0)
    assert float(uniformity(both[:, :1], 2.0)) == 0.0


def test_following_uniformity_drives_chains_apart() -> None:
    torch.manual_seed(0)
    points = (torch.randn(1, 6, 3) * 0.05 + 1.0).requires_grad_()
    start = float(uniformity(torch.nn.functional.normalize(points, dim=-1), 2.0).detach())
    optimizer = torch.optim.Adam([points], lr=0.05)
    for _ in range(80):
        optimizer.zero_grad()
        uniformity(torch.nn.functional.normalize(points, dim=-1), 2.0).backward()
        optimizer.step()
    assert float(uniformity(torch.nn.functional.normalize(points, dim=-1), 2.0).detach()) < start - 1.5


def test_only_supcon_has_weights_of_its_own() -> None:
    shape = {"hidden_size": 4, "num_latents": 2, "latent_dim": 3}
    assert sum(p.numel() for p in SupCon(SupCon.Options(width=5), **shape).parameters()) == 6 * 5 + 5
    assert list(Uniformity(Uniformity.Options(), **shape).parameters()) == []
