"""Tasks one after another, for results.py: each seed's command, what its run leaves, and the section of the page."""

import subprocess
from pathlib import Path
from statistics import mean
from typing import Any

from sheet import Sheet, difference

SEEDS = (0, 1, 2)


def folder(seed: int) -> Path:
    """Where a seed's run is."""
    return Path("runs") / f"curriculum-{seed}"


def command(seed: int) -> tuple[str, ...]:
    """Arguments of ``dlr``."""
    return (
        "run", "--curriculum", "benchmarks/curriculum.toml", "--minutes", "2", "--seed", str(seed), "--set",
        "clock=cpu", "--set", "eval.questions=100", "--out", folder(seed).as_posix(),
    )  # fmt: skip


def train(dlr: Path, part: int, parts: int) -> None:
    """The seeds of one part of all runs, counted from the last part back."""
    for seed in SEEDS:
        if (parts - seed - 1) % parts == part - 1:
            subprocess.run([dlr, *command(seed)], check=True)


def measures(grown: dict[str, Any]) -> tuple[str, ...]:
    """A row of a table: what one seed's two learners and its router did."""
    cells = [str(grown["seed"])]
    for learner in grown["learners"]:
        low, high = learner["backward_transfer_ci"]
        cells.append(f"{100 * learner['average']:.1f}")
        cells.append(difference(100 * learner["backward_transfer"], (100 * low, 100 * high)))
        cells.append(f"{100 * learner['forgetting']:.1f}")
    router = grown["router"]
    low, high = router["loss_ci"]
    lost = f"{100 * router['loss']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return (*cells, f"{100 * router['accuracy']:.1f}", lost)


def averaged(name: str, seeds: list[list[float | None]]) -> tuple[str, ...]:
    """A row of a table: mean of each task's accuracy over seeds in %, nothing where a seed has nothing."""
    return (name, *("" if None in cells else f"{100 * mean(cells):.0f}" for cells in zip(*seeds, strict=True)))


def section(kept: list[dict[str, Any]]) -> str:
    """Commands, each seed's measures, and the matrices task × stage averaged over seeds.

    Args:
        kept: ``{"seed": …, **accumulation.json}`` of each seed, of the same tasks.
    """
    tasks, numbers = kept[0]["tasks"], ", ".join(map(str, kept[0]["n"]))
    seeds = ", ".join(str(each["seed"]) for each in kept)
    names = [learner["name"] for learner in kept[0]["learners"]]
    heads = ["seed"]
    for name in names:
        heads += [f"{name}: average accuracy", "backward transfer", "forgetting"]
    heads += ["router right", "lost against an oracle"]
    commands = "\n".join(f"    dlr {' '.join(command(each['seed']))}" for each in kept)
    parts = ["## Tasks one after another", commands, Sheet(heads, [measures(each) for each in kept]).markdown()]
    for place, name in enumerate(names):
        about = f"partial credit counted (n = {numbers}; mean over seeds: {seeds})"
        parts.append(f"**{name}**, accuracy on each task in %, {about}:")
        matrices = [each["learners"][place]["matrix"] for each in kept]
        rows = [averaged(f"after {task}", list(stages)) for task, *stages in zip(tasks, *matrices, strict=True)]
        if "library" in name:
            for control, key in (
                ("the task's own skill", "oracle"),
                ("plain prompt", "plain"),
                ("anchor only", "anchor"),
            ):
                rows.append(averaged(control, [each[key] for each in kept]))
        parts.append(Sheet(("", *tasks), rows).markdown())
    return "\n\n".join(parts)
