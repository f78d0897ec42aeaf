"""Which runs a sweep file stands for, and how they are compared."""

import pytest

from dlr_core.errors import ConfigError
from dlr_core.sweep import compare, expand, parse_part


def test_a_grid_is_a_product_and_seeds_come_first() -> None:
    plan = {"base": {"minutes": 1}, "seeds": [3, 4], "grid": {"space.num_latents": [2, 8], "estimator": ["score"]}}
    rows = expand(plan)
    assert [(row.seed, row.values["space"]["num_latents"]) for row in rows] == [(3, 2), (3, 8), (4, 2), (4, 8)]
    assert all(row.values["estimator"] == {"name": "score"} and row.values["minutes"] == 1 for row in rows)
    assert len({row.folder for row in rows}) == 4


def test_variants_change_the_base_and_not_one_another() -> None:
    base = {"space": {"name": "kv", "radius": 2.0}}
    variants = [
        {"name": "default"},
        {"name": "two latents", "set": {"space.num_latents": 2}},
        {"name": "no contrast", "set": {"contrastive": "none"}},
    ]
    plan = {"base": base, "seeds": [0], "variants": variants}
    first, second, third = expand(plan)
    assert first.values["space"] == third.values["space"] == base["space"] == {"name": "kv", "radius": 2.0}
    assert second.values["space"] == {"name": "kv", "radius": 2.0, "num_latents": 2}
    assert second.folder == "two-latents-seed0"


def test_a_variant_can_have_seeds_of_its_own() -> None:
    variants = [{"name": "a"}, {"name": "b", "seeds": [1, 3]}, {"name": "c", "seeds": [4]}]
    rows = expand({"seeds": [0, 1], "variants": variants})
    assert [(row.seed, row.variant) for row in rows] == [(0, "a"), (1, "a"), (1, "b"), (3, "b"), (4, "c")]
    assert [row.values["seed"] for row in rows] == [row.seed for row in rows]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "either"),
        ({"variants": [{"name": "a", "seeds": []}]}, "seeds"),
        ({"variants": [{"name": "a", "seeds": [5, 5]}]}, "share the folder"),
        ({"variants": [{"name": "a"}], "grid": {"seed": [1]}}, "either"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"variant": []}, "variant"),
    ],
)
def test_bad_plans_are_refused(plan, message) -> None:
    with pytest.raises(ConfigError) as refused:
        expand(plan)
    assert any(message in problem for problem in refused.value.problems or [str(refused.value)])


def test_parts_share_the_runs_among_them() -> None:
    rows = list(range(7))
    parts = [rows[i - 1 :: n] for i, n in (parse_part(f"{i}/3") for i in (1, 2, 3))]
    assert sorted(row for part in parts for row in part) == rows
    for bad in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(ConfigError):
            parse_part(bad)


def row(variant, seed, trained, mean, task="sums"):
    accuracy = {"trained": trained.count("1") / len(trained), "mean": mean.count("1") / len(mean)}
    right = {"trained": trained, "mean": mean}
    return {
        "variant": variant,
        "task": task,
        "seed": seed,
        "steps": 5,
        "tflop": 1.0,
        "accuracy": accuracy,
        "right": right,
    }


def test_variants_are_compared_over_the_seeds_that_both_have() -> None:
    lines = compare([
        row("first", 0, "1100", "1000"), row("first", 1, "1111", "1111"),
        row("other", 0, "1110", "1111"), row("other", 2, "0000", "0000"),
    ])  # fmt: skip
    assert [line["variant"] for line in lines] == ["first", "other"]
    assert lines[0]["accuracy"] == 0.75
    assert lines[0]["minus_mean"] == pytest.approx(0.125)
    assert "difference" not in lines[0]
    assert lines[1]["seeds"] == [0, 2]
    assert lines[1]["difference"] == pytest.approx(0.25)


def test_different_tasks_are_not_compared() -> None:
    lines = compare([row("sums", 0, "1100", "1000"), row("words", 0, "110", "100", task="words")])
    assert [line["task"] for line in lines] == ["sums", "words"]
    assert "difference" not in lines[1]


def test_a_variant_refined_at_test_time_is_shown_by_its_refined_row() -> None:
    refined = row("refined", 0, "1100", "1000")
    refined["accuracy"]["refined"], refined["right"]["refined"] = 1.0, "1111"
    lines = compare([row("first", 0, "1100", "1000"), refined])
    assert lines[1]["accuracy"] == 1.0
    assert lines[1]["difference"] == pytest.approx(0.5)
    assert lines[1]["minus_mean"] == pytest.approx(0.75)
