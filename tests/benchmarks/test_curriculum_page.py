"""Tasks one after another on the results' page: every seed once, none lost, means of what the seeds have."""

import accumulation
import pytest


def grown(seed, matrix):
    learner = {"average": matrix[-1][0], "backward_transfer": -0.5, "backward_transfer_ci": [-0.75, -0.25],
               "forgetting": 0.5, "matrix": matrix}  # fmt: skip
    return {
        "seed": seed, "tasks": ["a", "b"], "n": [100, 100], "oracle": [0.5, 0.5], "plain": [0.0, 0.1],
        "anchor": [0.1, 0.2], "router": {"accuracy": 0.995, "loss": 0.01, "loss_ci": [0.0, 0.02]},
        "learners": [{"name": name, **learner} for name in ("skill library with router", "one assistant in sequence")],
    }  # fmt: skip


@pytest.mark.parametrize("parts", [1, 2, 3, 13])
def test_every_seed_is_trained_in_one_part_and_the_last_parts_have_one_each(parts, monkeypatch):
    asked = []
    monkeypatch.setattr(accumulation.subprocess, "run", lambda line, check: asked.append((part, line)))
    for part in range(1, parts + 1):
        accumulation.train("dlr", part, parts)
    assert sorted(line[line.index("--seed") + 1] for _, line in asked) == ["0", "1", "2"]
    if parts >= 3:
        assert sorted(number for number, _ in asked) == [parts - 2, parts - 1, parts]


def test_the_section_has_every_seeds_measures_and_the_mean_of_their_matrices():
    page = accumulation.section([grown(0, [[0.5, 0.25], [0.25, 0.75]]), grown(2, [[0.75, None], [0.5, 0.25]])])
    assert "--seed 0 " in page
    assert "--seed 2 " in page
    assert "| 0 | 25.0 | -50.0 [-75.0, -25.0] | 50.0 | 25.0 |" in page
    assert "| 99.5 | 1.0 [0.0, 2.0] |" in page
    assert "| after a | 62 |  |" in page
    assert "| after b | 38 | 50 |" in page
    assert page.count("| plain prompt | 0 | 10 |") == 1
