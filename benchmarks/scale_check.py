"""What the formulas say of the runs that were measured."""

from collections.abc import Mapping
from statistics import mean, median
from typing import Any

from scale_device import Device
from scale_methods import SINGLE, assistant_flops, gathered, ours
from scale_runs import CHAINS, CPU_POSITIONS, FRESH, LIMIT, LOOPBACK, LOOPS, QUESTIONS, REPLAY, SEARCH, TRIES, UPDATES
from scale_shapes import SMALL, Learner
from scale_step import Work

LEARNER = Learner()


def updates(row: Mapping[str, Any]) -> int:
    """Updates of a step: one, and with something to replay the others."""
    return UPDATES if "replay_nll" in row else 1


def main_flops(row: Mapping[str, Any]) -> int:
    """FLOPs of the positions that a step has counted."""
    positions = sum(int(row[key]) for key in ("prefilled", "decoded", "scored", "backpropagated"))
    return 2 * (positions * SMALL.matrices + int(row["logits"]) * SMALL.head)


def reduced(row: Mapping[str, Any]) -> int:
    """Bytes of gradients: four a parameter and update."""
    return SINGLE * LEARNER.trained(SMALL) * updates(row)


def states(row: Mapping[str, Any]) -> float:
    """Positions of the step's widest question, from what was gathered: a whole number if the formula is right."""
    work = Work(questions=QUESTIONS, chains=CHAINS)
    rest = gathered(SMALL, LEARNER, work, 0)
    return (float(row["gathered_bytes"]) - rest) / (gathered(SMALL, LEARNER, work, 1) - rest)


def exact(run: Mapping[str, Any]) -> bool:
    """Whether every byte and FLOP that a run has counted is as on paper."""
    rows, alone = run["steps"], run["ranks"] == 1
    computed = all(main_flops(row) == row["main_flops"] for row in rows)
    sent = all(reduced(row) == row["reduced_bytes"] and states(row) == int(states(row)) for row in rows if not alone)
    return computed and sent


def work_of(result: Mapping[str, Any]) -> Work:
    """What the run on one rank did in a mean step; how wide its questions are, from one on several."""
    (alone,) = (run for run in result["runs"] if run["ranks"] == 1)
    several = [states(row) for run in result["runs"] if run["ranks"] > 1 for row in run["steps"]]
    rows = alone["steps"]
    right = mean(row["correct"] for row in rows)
    taught = right * QUESTIONS * CHAINS + UPDATES * REPLAY
    return Work(
        questions=QUESTIONS, chains=CHAINS,
        prompt=mean(several) if several else 64,
        own=mean(row["prefilled"] for row in rows) / (QUESTIONS + FRESH),
        completion=sum(row["decoded"] for row in rows) / sum(row["decodes"] + row["search_decodes"] for row in rows),
        longest=LIMIT,
        search=SEARCH, fresh=FRESH, tries=TRIES, loops=LOOPS, replay=REPLAY, updates=UPDATES,
        right=right,
        lesson=mean(row["scored"] for row in rows) / taught,
    )  # fmt: skip


def device_of(result: Mapping[str, Any]) -> Device:
    """One core of the machine, at the speeds measured before the runs."""
    return Device(
        "core", result["flops"], result["flops"], result["memory"], LOOPBACK, LOOPBACK, 64, SINGLE, CPU_POSITIONS
    )


def on_cores(result: Mapping[str, Any], ranks: int, key: str) -> float:
    """A step by the roofline: seconds where ranks take turns on the machine's cores, or CPU seconds of them all."""
    core, count = device_of(result), result["cores"]
    step = ours(SMALL, LEARNER, work_of(result), ranks, core.number, core.positions)
    if key == "cpu_seconds":
        return ranks * step.seconds(core, ranks)
    return step.seconds(core.shared_by(ranks, count), ranks)


def predicted(result: Mapping[str, Any], key: str) -> dict[int, float]:
    """A step by the number of ranks: the roofline's, times one factor that fits the run on one rank."""
    factor = measured(result, 1, key) / on_cores(result, 1, key)
    return {run["ranks"]: factor * on_cores(result, run["ranks"], key) for run in result["runs"]}


def measured(result: Mapping[str, Any], ranks: int, key: str) -> float:
    """Median of a run's steps."""
    (run,) = (run for run in result["runs"] if run["ranks"] == ranks)
    return float(median(row[key] for row in run["steps"]))


def assistant_share(result: Mapping[str, Any]) -> float:
    """The assistant's FLOPs on paper over those that the run on one rank counted."""
    (alone,) = (run for run in result["runs"] if run["ranks"] == 1)
    counted = float(mean(row["assistant_flops"] for row in alone["steps"]))
    return assistant_flops(SMALL, LEARNER, work_of(result)) / counted
