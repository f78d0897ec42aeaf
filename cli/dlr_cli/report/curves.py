"""Curves of runs as inline SVG: one panel a figure, one line a run."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.figure import Figure

from dlr_core.plain import plain

Rows = Sequence[Mapping[str, Any]]
PANELS = (
    ("reward", "Reward", "mean of a step's decoded chains"),
    ("correct", "Correct", "share of decoded chains"),
    ("format", "Format", "share of decoded chains that keep the answer template"),
    ("best_of_k", "Best of K", "share of questions with a right chain"),
    ("distinct_answers", "Distinct answers", "parsed answers of one question's K chains"),
    ("search_correct", "Search", "share of token-sampled completions that are right"),
    ("question_cache_hits", "Question cache", "share of the prompts asked for that were held"),
    ("entropy", "Entropy", "nats per latent coordinate"),
    ("scale", "Policy scale", "standard deviation before tanh"),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("latent_distance", "Latent distance", "RMS between chains of one question"),
    ("question_distance", "Question distance", "RMS between questions' mean chains"),
    ("effective_rank", "Effective rank", "of a step's chains"),
    ("scorer_auroc", "Scorer AUROC", "prediction against correctness, 0.5 is chance"),
    ("scorer_calibration", "Scorer calibration error", "mean |predicted − realised reward|"),
    ("tflop", "Cost so far", "TFLOP of main model, assistant and scorer"),
)
COLOURS = ("#0b63b0", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0e7490", "#4b5563")
SMOOTH = 0.2
LARGEST = 1e18


def with_cost(rows: Rows) -> list[dict[str, Any]]:
    """Rows with the cost accumulated so far."""
    spent, found = 0.0, []
    for row in rows:
        spent += sum(row.get(f"{part}_flops") or 0 for part in ("main", "assistant", "scorer")) / 1e12
        found.append({**row, "tflop": spent} if spent else dict(row))
    return found


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average, corrected for its start."""
    total = weight = 0.0
    found = []
    for value in values:
        total, weight = (1 - SMOOTH) * total + SMOOTH * value, (1 - SMOOTH) * weight + SMOOTH
        found.append(total / weight)
    return found


def drawable(value: Any) -> bool:
    """Whether a value is a number that axes can hold."""
    return isinstance(value, int | float) and abs(value) < LARGEST  # false for one that is none


def words(text: str, limit: int = 60) -> str:
    """Text that a figure shows as it is: Matplotlib would read mathematics between dollars."""
    drawn = plain(text[:limit], keep="").encode("latin-1", "backslashreplace").decode("latin-1")  # what fonts have
    return drawn.replace("$", r"\$")


def svg(figure: Figure, label: str) -> str:
    """A figure as an inline SVG element that scales with its box and says what it shows."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" class="plot" ', 1)


def panel(key: str, runs: Mapping[str, Rows], label: str) -> str | None:
    """One curve of every run that logged it; None if none did."""
    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.add_subplot()
    drawn = False
    for number, (_, rows) in enumerate(runs.items()):
        points = [(row["step"], row[key]) for row in rows if drawable(row.get(key))]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        colour = COLOURS[number % len(COLOURS)]
        if key != "tflop":
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
            values = tuple(smooth(values))
        axes.plot(steps, values, color=colour, linewidth=1.6)
        drawn = True
    if not drawn:
        return None
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if key in ("correct", "format", "best_of_k", "search_correct", "question_cache_hits", "scorer_auroc"):
        axes.set_ylim(0, 1.02)
    return svg(figure, label)


def control_bars(table: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Accuracy of every row with its interval, as horizontal bars."""
    names = list(table["rows"])[::-1]
    figure = Figure(figsize=(4.8, 0.5 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    values = np.array([100 * table["rows"][name]["accuracy"] for name in names])
    spans = np.array([[100 * bound for bound in table["rows"][name]["ci"]] for name in names])
    reach = np.clip(np.stack([values - spans[:, 0], spans[:, 1] - values]), 0, None)
    colours = [COLOURS[0] if name == "trained" else "#9ca3af" for name in names]
    axes.barh(
        [words(labels.get(name, name)) for name in names],
        values,
        xerr=reach,
        color=colours,
        ecolor="#111827",
        capsize=2,
    )
    axes.set_xlabel("right %, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure, "accuracy of every row of the control table")


def heatmap(matrix: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str], label: str) -> str:
    """Accuracies as a coloured table of numbers; None is left blank."""
    figure = Figure(figsize=(1.9 + 1.1 * len(columns), 0.9 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    shares = np.array([[np.nan if value is None else 100 * value for value in row] for row in matrix], float)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), [words(name) for name in columns], rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [words(name) for name in rows])
    for (row, column), value in np.ndenumerate(shares):
        if not np.isnan(value):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 60 else "black")
    return svg(figure, label)
