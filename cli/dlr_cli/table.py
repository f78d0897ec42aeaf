"""The control table, as people read it."""

from typing import Any

from rich.console import Console
from rich.table import Table

LABELS = {
    "plain": "plain prompt",
    "anchor": "anchor only (a = 0)",
    "best_prompt": "best hand-written prompt",
    "random": "random latents",
    "mean": "mean latents",
    "shuffled": "shuffled latents",
    "trained": "trained",
}


def open_console(*, stderr: bool = False) -> Console:
    """A console that is wide enough for the table where there is no terminal to ask."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=120)


def print_table(result: dict[str, Any], console: Console) -> None:
    """Accuracy of every row with its interval, and trained minus the row, paired."""
    table = Table(title=f"{result['env']}: {result['n']} distinct {result['split']} questions, 95 % intervals")
    for heading, side in (("", "left"), ("right %", "right"), ("interval", "right"), ("format %", "right"),
                          ("tokens", "right"), ("trained − row", "right"), ("paired interval", "right")):  # fmt: skip
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for name, row in result["rows"].items():
        label = LABELS.get(name, name)
        if "prompt" in row:
            label += f" {row['prompt']!r}"
        gap = result["paired"].get(name)
        table.add_row(
            label,
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['ci'][0]:.1f} … {100 * row['ci'][1]:.1f}",
            f"{100 * row['format']:.0f}",
            f"{row['tokens']:.1f}",
            f"{100 * gap['difference']:+.1f}" if gap else "",
            f"{100 * gap['ci'][0]:+.1f} … {100 * gap['ci'][1]:+.1f}" if gap else "",
            style="bold" if name == "trained" else None,
        )
    console.print(table)
    trained = result["rows"]["trained"]
    if "pass_at_k" in trained:
        k = trained["k"]
        console.print(
            f"trained, {k} sampled chains: pass@{k} {trained['pass_at_k']:.1%}, maj@{k} {trained['maj_at_k']:.1%}"
        )
    console.print(explain_latents(result), highlight=False)
    digest = result["digest"]
    same = "unchanged" if digest["before"] == digest["after"] else "CHANGED"
    console.print(f"main model {same}: digest {digest['after'][:16]}…", highlight=False)


def explain_latents(result: dict[str, Any]) -> str:
    """In words: do the latents carry the question, or are they one good prompt?"""
    parts = []
    for name, meaning in (
        ("mean", "one static chain for all questions"),
        ("shuffled", "another question's chain"),
    ):
        low, high = result["paired"][name]["ci"]
        gap = 100 * result["paired"][name]["difference"]
        if low > 0:
            verdict = f"{gap:.1f} points of it are lost with {meaning}"
        elif high < 0:
            verdict = f"{meaning} does even better, by {-gap:.1f} points"
        else:
            verdict = f"{meaning} does as well within the interval ({gap:+.1f} points)"
        parts.append(verdict)
    carried = all(result["paired"][name]["ci"][0] > 0 for name in ("mean", "shuffled"))
    lead = "The latents carry the question" if carried else "The latents act largely as one learned prompt"
    return f"{lead}: {'; '.join(parts)}."
