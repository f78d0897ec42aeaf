"""docs/growth.md: the table and the picture of what growth.py has measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from documented import DOCS, document
from entries import HERE
from growth_fit import growth
from growth_points import MEANING
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from pictures import COLOURS, save
from sheet import Sheet

QUANTITIES = {"seconds": ("CPU seconds", 1.0), "bytes": ("MB above what is held", 1e-6), "main_flops": ("GFLOP", 1e-9)}
"""What is shown: its unit, and how many of it one of the measured is."""
Points = Sequence[Mapping[str, Any]]


def line(points: Points, key: str) -> tuple[list[float], list[list[float]]]:
    """Where the points are, and what each turn found there."""
    scale = QUANTITIES[key][1]
    return [float(at["x"]) for at in points], [[value * scale for value in at[key]] for at in points]


def exponents(axes: Mapping[str, Points]) -> Sheet:
    """Every axis and quantity: exponents, and the bend."""
    rows = []
    for axis, points in axes.items():
        cells = [MEANING[axis], f"{points[0]['x']:.4g} … {points[-1]['x']:.4g}"]
        for key in QUANTITIES:
            found = growth(*line(points, key))
            upper = f"{found.upper:.2f} [{found.low:.2f}, {found.high:.2f}]"
            cells += [f"{found.whole:.2f}, {upper}", f"{found.bend:.2f}"]
        rows.append(cells)
    head = ["against", "from … to", "seconds: exponent, upper half", "bend", "memory", "bend", "FLOPs counted", "bend"]
    return Sheet(head, rows)


def values(axes: Mapping[str, Points]) -> Sheet:
    """Every point: the median, and the turns' least and most."""
    rows = []
    for axis, points in axes.items():
        for at in points:
            cells = [axis, f"{at['x']:.4g}"]
            for key, digits in (("seconds", 1), ("bytes", 0), ("main_flops", 0)):
                own = [value * QUANTITIES[key][1] for value in at[key]]
                cells.append(f"{np.median(own):.{digits}f} ({min(own):.{digits}f} … {max(own):.{digits}f})")
            rows.append(cells)
    return Sheet(["axis", "at", "CPU seconds", "MB", "GFLOP of the main model"], rows)


def picture(axes: Mapping[str, Points]) -> Figure:
    """Seconds above, memory below, an axis a column, both scales logarithmic; dashed: in proportion."""
    figure = Figure(figsize=(12.8, 5.2), layout="constrained")
    grid = figure.subplots(2, len(axes), sharey="row")
    for column, (axis, points) in enumerate(axes.items()):
        for row, key in enumerate(("seconds", "bytes")):
            place, (xs, turns) = grid[row][column], line(points, key)
            found, ys = growth(xs, turns), [float(np.median(own)) for own in turns]
            place.loglog(xs, ys, marker="o", markersize=4, color=COLOURS[row])
            place.loglog(xs, [ys[-1] * x / xs[-1] for x in xs], linestyle="--", linewidth=1, color="#9ca3af")
            place.set_title(f"{found.whole:.2f}, upper half {found.upper:.2f}", fontsize=8)
            place.set_xticks(xs, [f"{x:.3g}" for x in xs])
            place.xaxis.set_minor_formatter(NullFormatter())
            place.tick_params(labelsize=7)
            if row:
                place.set_xlabel(MEANING[axis], fontsize=8)
            if not column:
                place.set_ylabel(QUANTITIES[key][0], fontsize=8)
    title = "A training step against each of five sizes, all else as by default; dashed: exponent 1"
    figure.suptitle(title, fontsize=10)
    return figure


def write_page(result: Mapping[str, Any]) -> None:
    """Tables and picture into their places."""
    axes = result["axes"]
    save(picture(axes), HERE / "growth.png")
    page = DOCS / "growth.md"
    exponents(axes).print()
    values(axes).print()
    about = (f"`{result['command']}` on {result['machine']}, {result['turns']} turns, "
             f"{result['cpu_seconds']:.0f} s of CPU in all.")  # fmt: skip
    document(page, "growth", exponents(axes).markdown() + "\n\n" + about)
    document(page, "growth-points", values(axes).markdown())
