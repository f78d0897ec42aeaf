"""What it is worth that completions are judged while the frozen model is at its next batch.

python benchmarks/overlap.py

Training steps of a default run, taken in turns by two trainers of one seed: one judges beside the main model's work, as
runs do, the other judges and then goes on. Both do the same work and learn the same: every metric of every step is
compared. Three ways of judging: the default task's own (a pattern), math-verify (GSM8K's, in a process of its own), and
a judge who takes a while to answer, as a service on a network does. A fourth row leaves the training out: steps of the
vector environment alone, with the slow judge.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dlr_cli.host import load_host
from entries import HERE, record
from interleaved import Side, alternate, ratio_of_medians
from pictures import bars
from sheet import Sheet, spread

from dlr_core.aside import Pending
from dlr_core.assignments import merge, parse_assignment
from dlr_core.config import resolve
from dlr_core.pipeline import build_trainer

TIMES = ("seconds", "phases", "progress")
"""Metrics that two runs need not share."""
QUESTIONS = 400


class AtOnce:
    """In the place of :class:`dlr_core.aside.Aside`: the call is made before the caller goes on."""

    def start(self, call: Callable[..., Any], *arguments: Any) -> Pending[Any]:
        """Make it."""
        pending: Pending[Any] = Pending()
        try:
            pending.answer(call(*arguments))
        except Exception as error:
            pending.answer(None, error)
        return pending


def word_problems(path: Path) -> None:
    """A file in GSM8K's format, of sums whose answers math-verify has to look at."""
    rng = np.random.default_rng(0)
    rows = []
    for first, second in rng.integers(2, 100, (QUESTIONS, 2)).tolist():
        answer = f"{first} + {second} = {first + second}\n#### {first + second}"
        rows.append({"question": f"What is {first} + {second}?", "answer": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def slowed(task: Any, seconds: float) -> None:
    """Have a task's verdicts come late."""
    score = task.score

    def late(*args: Any) -> Any:
        time.sleep(seconds)
        return score(*args)

    task.score = late


def trainers(settings: Mapping[str, Any], late: float) -> list[Any]:
    """Two of one seed: the first judges beside the main model's work, the second does not."""
    made = []
    for at_once in (False, True):
        host = load_host()
        trainer: Any = build_trainer(resolve(settings, host), host)
        if late:
            slowed(trainer.env.engine.task, late)
        if at_once:
            trainer.env.engine._beside = AtOnce()
        made.append(trainer)
    return made


def steps_of(trainer: Any, told: list[dict[str, Any]]) -> Side:
    """A training step a turn; its metrics are noted."""

    def side(turn: int) -> float:
        began = time.perf_counter()
        metrics = trainer.step()
        spent = time.perf_counter() - began
        told.append({key: value for key, value in metrics.items() if key not in TIMES})
        return spent

    return side


def episodes_of(trainer: Any, told: list[dict[str, Any]]) -> Side:
    """A step of the environment alone a turn."""
    env = trainer.env

    def side(turn: int) -> float:
        actions = np.random.default_rng(turn).uniform(-0.3, 0.3, env.action_space.shape).astype(np.float32)
        began = time.perf_counter()
        _, rewards, *_ = env.step(actions)
        spent = time.perf_counter() - began
        told.append({"rewards": rewards.tolist()})
        return spent

    return side


def compare(pair: Sequence[Any], make: Callable[[Any, list[dict[str, Any]]], Side], turns: int) -> dict[str, Any]:
    """Seconds of both, turn by turn after the first, and whether they did the same."""
    told: list[list[dict[str, Any]]] = [[], []]
    sides = [make(trainer, notes) for trainer, notes in zip(pair, told, strict=True)]
    ours, theirs = (values[1:] for values in alternate(sides, turns + 1))  # the first turn warms up
    return {"seconds": ours, "one_after_another": theirs, "same": told[0] == told[1]}


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Every way of judging."""
    rows = []
    for name, cell in measured["cells"].items():
        found = ratio_of_medians(cell["seconds"], cell["one_after_another"])
        figures = (f"{found.ratio:.3f}", f"{found.low:.3f} … {found.high:.3f}", str(found.n))
        same = "yes" if cell["same"] else "no"
        rows.append((name, spread(cell["seconds"]), spread(cell["one_after_another"]), *figures, same))
    return Sheet(("judged by", "beside, s", "one after another, s", "ratio", "95 %", "n", "same metrics"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7, help="turns of each")
    parser.add_argument("--late", type=float, default=0.02, help="seconds that the slow judge takes for a completion")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of a run")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.jsonl"
        word_problems(path)
        base: dict[str, Any] = {"steps": 10_000, "decoder": {"model": args.main_model}}
        short = {**base["decoder"], "max_new_tokens": 16}
        maths = {**base, "env": "dlr/GSM8K-v0", "task": {"path": str(path)}, "decoder": short}
        plans: dict[str, tuple[dict[str, Any], float, Any]] = {
            "a pattern (default)": (base, 0.0, steps_of),
            "math-verify": (maths, 0.0, steps_of),
            f"a service, {1000 * args.late:g} ms": (base, args.late, steps_of),
            f"a service, {1000 * args.late:g} ms, environment alone": (base, args.late, episodes_of),
        }
        cells = {}
        for name, (settings, late, make) in plans.items():
            asked = copy.deepcopy(dict(settings))
            for text in args.set:
                merge(asked, *parse_assignment(text))
            cells[name] = compare(trainers(asked, late), make, args.steps)
    measured = {"main_model": Path(args.main_model).name, "cells": cells}
    found = {name: ratio_of_medians(cell["seconds"], cell["one_after_another"]) for name, cell in cells.items()}
    record("step_overlap", next(iter(found.values())), measured, args.out)
    sheet(measured).print()
    shown = {name: (ratio.ratio, ratio.low, ratio.high) for name, ratio in found.items()}
    bars(args.out / "step_overlap.png", "Judging beside the main model", "× as fast", shown, {"no gain": 1.0})


if __name__ == "__main__":
    main()
