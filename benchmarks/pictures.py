"""One picture per benchmark, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

COLOURS = ("#0b63b0", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c")

Bar = tuple[float, float, float]
"""Value, low, high."""
Line = Sequence[tuple[float, float]]
"""Points of a curve."""


def bars(
    path: Path, title: str, unit: str, values: Mapping[str, Bar], marks: Mapping[str, float] | None = None
) -> None:
    """A bar with its interval for every label, and a dashed line at every mark."""
    figure = Figure(figsize=(6.4, 1.2 + 0.34 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    for place, (value, low, high) in enumerate(values.values()):
        spread = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
        axes.barh(place, value, color=COLOURS[0], alpha=0.8, xerr=spread, ecolor="#333333", capsize=2)
    axes.set_yticks(range(len(values)), labels=list(values))
    axes.invert_yaxis()
    for label, mark in (marks or {}).items():
        axes.axvline(mark, color="#c2410c", linestyle="--", linewidth=1)
        axes.annotate(label, (mark, 1), xycoords=("data", "axes fraction"), fontsize=7, color="#c2410c", va="bottom")
    axes.set_xlabel(unit)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def curves(
    path: Path, title: str, across: str, up: str, lines: Mapping[str, Sequence[Line]], marks: Mapping[str, float],
    points: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> None:  # fmt: skip
    """Every label's curves in one colour, single points beside them, a dashed line at every height marked."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for number, (label, own) in enumerate(lines.items()):
        for place, line in enumerate(own):
            if line:
                xs, ys = zip(*line, strict=True)
                axes.plot(xs, ys, color=COLOURS[number % 6], linewidth=1.4, label=None if place else label)
    for number, (label, spots) in enumerate((points or {}).items()):
        if spots:
            xs, ys = zip(*spots, strict=True)
            axes.scatter(xs, ys, marker="x", color=COLOURS[number % 6], label=label)
    for label, mark in marks.items():
        axes.axhline(mark, color="#4b5563", linestyle="--", linewidth=1)
        axes.annotate(label, (0, mark), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG that is the same for the same figure."""
    figure.savefig(path, dpi=90, metadata={"Software": None})
