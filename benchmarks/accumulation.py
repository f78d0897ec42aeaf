"""Tasks one after another, for results.py: each seed's command, what its run leaves, and the section of the page."""

import subprocess
from pathlib import Path
from statistics import mean
from typing import Any

SEEDS = (0, 1, 2)
RESULT = "accumulation.json"


def command(seed: int) -> tuple[str, ...]:
    """Arguments of ``dlr``."""
    return (
        "run", "--curriculum", "benchmarks/curriculum.toml", "--minutes", "2", "--seed", str(seed), "--set",
        "clock=cpu", "--set", "eval.questions=100", "--out", f"runs/curriculum-{seed}",
    )  # fmt: skip


def train(dlr: Path, part: int, parts: int) -> None:
    """The seeds of one part of all runs, counted from the last part back."""
    for seed in SEEDS:
        if (parts - seed - 1) % parts == part - 1:
            subprocess.run([dlr, *command(seed)], check=True)


def seed_line(seed: int, grown: dict[str, Any]) -> str:
    """What one seed's two learners and its router did, as a row of a table."""
    cells = []
    for learner in grown["learners"]:
        low, high = learner["backward_transfer_ci"]
        cells.append(f"{100 * learner['average']:.1f}")
        cells.append(f"{100 * learner['backward_transfer']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
        cells.append(f"{100 * learner['forgetting']:.1f}")
    router = grown["router"]
    low, high = router["loss_ci"]
    lost = f"{100 * router['loss']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"| {seed} | " + " | ".join([*cells, f"{100 * router['accuracy']:.1f}", lost]) + " |"


def averaged(rows: list[list[float | None]]) -> list[str]:
    """Mean of each cell over seeds in %, nothing where a seed has nothing."""
    return ["" if None in cells else f"{100 * mean(cells):.0f}" for cells in zip(*rows, strict=True)]


def section(kept: list[dict[str, Any]]) -> str:
    """Commands, each seed's measures, and the matrices task × stage averaged over seeds.

    Args:
        kept: ``{"seed": …, **accumulation.json}`` of each seed, of the same tasks.
    """
    tasks, numbers = kept[0]["tasks"], ", ".join(map(str, kept[0]["n"]))
    heads = ["seed"]
    for learner in kept[0]["learners"]:
        heads += [f"{learner['name']}: average accuracy", "backward transfer", "forgetting"]
    heads += ["router right", "lost against an oracle"]
    lines = ["## Tasks one after another", ""]
    lines += [f"    dlr {' '.join(command(each['seed']))}" for each in kept]
    lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [seed_line(each["seed"], each) for each in kept]
    for place, learner in enumerate(kept[0]["learners"]):
        seeds = ", ".join(str(each["seed"]) for each in kept)
        about = f"partial credit counted (n = {numbers}; mean over seeds: {seeds})"
        lines += ["", f"**{learner['name']}**, accuracy on each task in %, {about}:", ""]
        lines += ["| | " + " | ".join(tasks) + " |", "|---" * (1 + len(tasks)) + "|"]
        for stage, task in enumerate(tasks):
            cells = averaged([each["learners"][place]["matrix"][stage] for each in kept])
            lines.append(f"| after {task} | " + " | ".join(cells) + " |")
        if "library" in learner["name"]:
            for name, key in (("the task's own skill", "oracle"), ("plain prompt", "plain"), ("anchor only", "anchor")):
                lines.append(f"| {name} | " + " | ".join(averaged([each[key] for each in kept])) + " |")
    return "\n".join(lines)
