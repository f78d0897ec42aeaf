"""docs/scale.md: what was measured beside what the paper says, the picture, and all tables in their places."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

from documented import DOCS, document
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pictures import COLOURS, save
from scale_check import assistant_share, device_of, exact, measured, on_cores, predicted, work_of
from scale_device import H100
from scale_shapes import MIDDLE, Learner
from scale_tables import (
    LEARNER,
    LORA,
    RANKS,
    bytes_table,
    gpus,
    latents_table,
    memory_table,
    models_table,
    seconds_table,
    size,
    step,
)
from sheet import Sheet, spread

DOCUMENT = DOCS / "scale.md"
CLOCKS = ("cpu_seconds", "seconds")


def check_table(result: Mapping[str, Any]) -> Sheet:
    """Runs, and what the formulas say of them."""
    work, rows = work_of(result), []
    told = {key: predicted(result, key) for key in CLOCKS}
    for run in result["runs"]:
        steps, count = run["steps"], run["ranks"]
        cells = [str(count), str(len(steps))]
        for key in CLOCKS:
            spent, paper = [row[key] for row in steps], told[key][count]
            off = "fitted" if count == 1 else f"{median(spent) / paper - 1:+.0%}"
            cells += [spread(spent, 1), f"{paper:.1f} ({off})"]
        filled = mean(row["prefilled"] for row in steps)
        cells.append(f"{filled:,.0f}, {(work.new + work.refilled(count)) * (work.own or 0):,.0f}")
        sent = [size(median(row.get(key, 0) for row in steps)) for key in ("reduced_bytes", "gathered_bytes")]
        rows.append((*cells, *sent, "yes" if exact(run) else "no", str(run["load"])))
    said, read = "on paper (measured is)", "prefilled, on paper at most"
    head = ("ranks", "steps", "CPU seconds of all ranks", said, "seconds", said, read, "gradients", "gathered",
            "bytes and FLOPs exact", "load")  # fmt: skip
    return Sheet(head, rows)


def check_text(result: Mapping[str, Any]) -> str:
    """The table, and what it was fitted with."""
    core, work = device_of(result), work_of(result)
    roof, spent = (find(result, 1, "cpu_seconds") for find in (on_cores, measured))
    about = (
        f"`{result['command']}` on {result['machine']}. One thread, under the same load, reached "
        f"{core.flops / 1e9:.0f} GFLOP/s in a large product and read {core.memory / 1e9:.1f} GB/s. A mean step had "
        f"{work.completion:.1f} tokens a completion and "
        f"{work.own:.0f} positions of its own in a prompt of {work.prompt:.0f}. The roofline gives {roof:.1f} s of CPU "
        f"on one rank, and the run took {spent / roof:.2f} times that: the factor that the other rows are multiplied "
        f"with. The assistant's FLOPs on paper are {assistant_share(result):.0%} of those counted."
    )
    return f"{check_table(result).markdown()}\n\n{about}"


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """What stands between each pair of comments."""
    return {
        "scale-bytes": bytes_table().markdown(),
        "scale-seconds": seconds_table().markdown(),
        "scale-latents": latents_table().markdown(),
        "scale-models": models_table().markdown(),
        "scale-check": check_text(result),
        "scale-memory": memory_table().markdown(),
    }


def render(page: Path, result: Mapping[str, Any]) -> None:
    """Write them."""
    for name, text in tables(result).items():
        document(page, name, text)


def picture(path: Path) -> None:
    """Seconds and bytes of a step against ranks: 7B, all three methods."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    spent, sent = figure.subplots(1, 2)
    methods: dict[str, Learner | int] = {"latents": LEARNER, "GRPO": 0, "GRPO on LoRA": LORA}
    for colour, (name, learner) in zip(COLOURS, methods.items(), strict=False):
        steps = {count: step(MIDDLE, learner, count) for count in RANKS}
        fits = [count for count in RANKS if gpus(MIDDLE, learner, count) is not None]
        spent.plot(fits, [steps[n].seconds(H100, n) for n in fits], marker="o", color=colour, label=name)
        sending = [count for count in RANKS if steps[count].sent(count)]
        sent.plot(sending, [steps[n].sent(n) / 1e9 for n in sending], marker="o", color=colour, label=name)
    scales = ((spent, "seconds a step", (2, 5, 10, 20, 50)), (sent, "GB that a rank sends", (0.1, 1, 10, 100)))
    for axes, unit, ticks in scales:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(RANKS, labels=[str(count) for count in RANKS])
        axes.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("ranks")
        axes.set_ylabel(unit)
        axes.legend(fontsize=7)
    figure.suptitle("On paper: one step of a 7B main model on H100s", fontsize=10)
    save(figure, path)
