"""A sweep: variants of one run, each under several seeds, compared question by question with the first variant."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlr_core.aggregate import bootstrap_runs
from dlr_core.assignments import merge, parse_assignment
from dlr_core.errors import ConfigError, RunFolderError
from dlr_core.host import explain
from dlr_core.records import FULLY_RIGHT

MOST_RUNS = 10_000


class Variant(BaseModel):
    """What one variant changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict, description="Dotted settings, as --set takes them.")
    seeds: tuple[int, ...] | None = Field(None, min_length=1, description="Its own seeds; the sweep's if not given.")


class SweepPlan(BaseModel):
    """A sweep file: shared settings, and either variants, or a grid whose product is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: dict[str, Any] = Field(default_factory=dict, description="Settings of every run, as in a config file.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    variants: tuple[Variant, ...] = ()
    grid: dict[str, list[Any]] = Field(default_factory=dict, description="Dotted setting → values.")


@dataclass(frozen=True)
class Row:
    """One run of a sweep."""

    variant: str
    seed: int
    values: dict[str, Any]
    """Settings, not yet validated."""

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        slug = "".join(c if c.isalnum() or c in "-_.=" else "-" for c in self.variant)
        return f"{slug}-seed{self.seed}"


def expand(tree: Mapping[str, Any]) -> list[Row]:
    """Every run of a sweep file, seed by seed, so that one seed of everything is there early.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        plan = SweepPlan.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(*explain(error, "sweep", SweepPlan.model_fields)) from None
    if bool(plan.variants) == bool(plan.grid):
        raise ConfigError("a sweep needs either [[variants]] or a [grid]")
    runs = sum(len(variant.seeds or plan.seeds) for variant in plan.variants)
    runs += len(plan.seeds) * math.prod(map(len, plan.grid.values())) if plan.grid else 0
    if not 1 <= runs <= MOST_RUNS:
        raise ConfigError(f"a sweep: expected 1 to {MOST_RUNS} runs, got {runs}")
    variants = list(plan.variants) or [
        Variant(name=", ".join(f"{key}={value}" for key, value in zip(plan.grid, chosen, strict=True)),
                set=dict(zip(plan.grid, chosen, strict=True)))
        for chosen in product(*plan.grid.values())
    ]  # fmt: skip
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ConfigError("two variants of a sweep have the same name")
    rows = [
        Row(variant.name, seed, _values(plan.base, variant.set, seed))
        for variant in variants
        for seed in variant.seeds or plan.seeds
    ]
    first_met = list(dict.fromkeys([*plan.seeds, *(row.seed for row in rows)]))
    rows.sort(key=lambda row: first_met.index(row.seed))
    folders = [row.folder for row in rows]
    taken = next((row for row in rows if folders.count(row.folder) > 1), None)
    if taken is not None:
        raise ConfigError(f"two runs of a sweep would share the folder {taken.folder}: rename a variant, or a seed")
    return rows


def _values(base: Mapping[str, Any], changes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    values: dict[str, Any] = dict(base)
    for key, value in changes.items():
        merge(values, parse_assignment(f"{key}=0")[0], value)
    return {**values, "seed": seed}


def parse_part(text: str) -> tuple[int, int]:
    """``2/3`` as (2, 3).

    Raises:
        ConfigError: not of that form, or not within it.
    """
    number, slash, count = text.partition("/")
    digits = number.isdecimal() and count.isdecimal() and len(text) < 20
    if not (slash and digits and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--part: expected i/n with 1 <= i <= n, got {text[:40]!r}")
    return int(number), int(count)


def summarise(row: Row, manifest: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a finished run: small enough to commit, enough to pair its questions with another run's.

    Raises:
        RunFolderError: the run has not kept all that is needed.
    """
    if not {"training", "cost"} <= manifest.keys() or "per_question" not in table:
        raise RunFolderError(f"{row.folder} is damaged: its cost or its questions' results are missing")
    return {
        "variant": row.variant,
        "seed": row.seed,
        "task": manifest["config"].get("task", {}).get("name") or table["env"],
        "split": table["split"],
        "n": table["n"],
        "steps": manifest["training"]["steps"],
        "minutes": round(manifest["training"]["seconds"] / 60, 2),
        "tflop": manifest["cost"]["flops"] / 1e12,
        "gold": manifest["gold_answers_seen"],
        "digest_kept": table["digest"]["before"] == table["digest"]["after"],
        "accuracy": {name: shown["accuracy"] for name, shown in table["rows"].items()},
        "format": table["rows"]["trained"]["format"],
        "right": {
            name: "".join(str(int(x >= FULLY_RIGHT)) for x in bits) for name, bits in table["per_question"].items()
        },
    }


def compare(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a variant: mean over seeds with its interval, and its difference from the first variant.

    Differences are paired by seed and question over the seeds that both have, where both are on one task; the interval
    draws seeds, then questions.
    """
    found = []
    names = list(dict.fromkeys(row["variant"] for row in rows))
    for name in names:
        own = {row["seed"]: row for row in rows if row["variant"] == name}
        first = {row["seed"]: row for row in rows if row["variant"] == names[0]}
        mean, _ = bootstrap_runs([[bits(row, shown(row)) for row in own.values()]])
        line: dict[str, Any] = {
            "variant": name,
            "task": next(iter(own.values()))["task"],
            "seeds": sorted(own),
            "accuracy": float(np.mean([bits(row, shown(row)).mean() for row in own.values()])),
            "ci": list(mean),
            "steps": float(np.mean([row["steps"] for row in own.values()])),
            "tflop": float(np.mean([row["tflop"] for row in own.values()])),
        }
        for control in ("mean", "shuffled"):
            if all(control in row["right"] for row in own.values()):
                gaps = [bits(row, shown(row)) - bits(row, control) for row in own.values()]
                line[f"minus_{control}"] = float(np.mean([gap.mean() for gap in gaps]))
                line[f"minus_{control}_ci"] = list(bootstrap_runs([gaps])[0])
        shared = sorted(seed for seed in set(own) & set(first) if own[seed]["task"] == first[seed]["task"])
        if name != names[0] and shared:
            gaps = [bits(own[seed], shown(own[seed])) - bits(first[seed], shown(first[seed])) for seed in shared]
            line["difference"] = float(np.mean([gap.mean() for gap in gaps]))
            line["difference_ci"] = list(bootstrap_runs([gaps])[0])
        found.append(line)
    return found


def shown(row: Mapping[str, Any]) -> str:
    """The row of a run's control table that stands for its variant: the refined one where there is one."""
    return "refined" if "refined" in row["right"] else "trained"


def bits(row: Mapping[str, Any], name: str) -> Any:
    """Correctness of every question of one row of a summary's control table."""
    return np.array([float(bit) for bit in row["right"][name]])
