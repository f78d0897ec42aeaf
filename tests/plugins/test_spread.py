"""The contrastive objectives `supcon` and `uniformity`, by hand and by slow loops."""

import math

import pytest
import torch
from dlr_plugins.contrastive.supcon import SupCon, labels, supcon
from dlr_plugins.contrastive.uniformity import Uniformity, uniformity
from torch.nn.functional import normalize

from dlr_core.testing import toy


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


def test_uniformity_is_a_mean_over_the_pairs_of_each_group() -> None:
    unit = normalize(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    pairs = [[math.exp(-1.5 * math.dist(z[i], z[j]) ** 2) for i in range(5) for j in range(i)] for z in unit.tolist()]
    expected = sum(math.log(sum(group) / len(group)) for group in pairs) / 3
    assert float(uniformity(unit, 1.5)) == pytest.approx(expected, rel=1e-5)


def test_a_group_of_one_has_nothing_to_flee_and_no_gradient() -> None:
    alone = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]]], requires_grad=True)
    loss = uniformity(alone, 2.0)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not alone.grad.any()


def test_the_objective_supcon_compares_what_it_reads_in_the_decoded_chains() -> None:
    batch, leaf = toy.batch([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    torch.manual_seed(0)
    objective = SupCon(SupCon.Options(weight=0.5, temperature=0.7, width=5), **toy.SHAPE)
    read = objective.read_chain(leaf[[0, 2, 4, 6, 8, 10]].flatten(1)).tolist()
    unit = [[x / math.hypot(*row) for x in row] for row in read]
    scores = [[sum(x * y for x, y in zip(a, b, strict=True)) / 0.7 for b in unit] for a in unit]
    expected = slow_supcon(scores, [0, 0, 1, 1, 2, 2], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    loss, logs = objective(batch)
    assert logs == {"supcon": pytest.approx(expected, rel=1e-4)}
    assert float(loss.detach()) == pytest.approx(0.5 * expected, rel=1e-4)


def test_the_objective_uniformity_acts_on_all_chains_of_each_question() -> None:
    batch, leaf = toy.batch([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    expected = float(uniformity(normalize(leaf.tanh().view(3, 4, 12), dim=-1), 3.0).detach())
    loss, logs = Uniformity(Uniformity.Options(weight=0.5, sharpness=3.0), **toy.SHAPE)(batch)
    assert logs == {"uniformity": pytest.approx(expected, rel=1e-5)}
    assert float(loss.detach()) == pytest.approx(0.5 * expected, rel=1e-5)
    (slope,) = torch.autograd.grad(loss, leaf)
    assert bool((slope.abs().amax((1, 2)) > 0).all())


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
