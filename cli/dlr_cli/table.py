"""The control table, as people read it: on a terminal, or as Markdown for a paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dlr_cli.screen import Screen
from dlr_core.plain import one_line

LABELS = {
    "plain": "plain prompt",
    "anchor": "anchor only (a = 0)",
    "best_prompt": "best hand-written prompt",
    "random": "random latents",
    "mean": "mean latents",
    "shuffled": "shuffled latents",
    "refined": "trained, refined at test time",
    "trained": "trained",
}
HEADINGS = ("", "right %", "interval", "format %", "tokens", "GFLOP", "trained − row", "paired interval")


def open_console(*, stderr: bool = False) -> Console:
    """Where tables and lines for people are printed."""
    return Screen(stderr=stderr)


def headed(name: str, headings: Sequence[str]) -> Table:
    """An empty table: the first column on the left, figures on the right."""
    table = Table(title=name)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same in Markdown, without an end of line."""
    first, *others = (
        "| " + " | ".join(one_line(cell).replace("|", r"\|") for cell in row) + " |" for row in (headings, *rows)
    )
    return "\n".join([first, "|---" + "|---:" * (len(headings) - 1) + "|", *others])


def title(result: dict[str, Any]) -> str:
    """What was measured, in a line."""
    runs = f", {len(result['runs'])} runs" if "runs" in result else f", run {result['run']}" if "run" in result else ""
    return f"{result['env']}: {result['n']} distinct {result['split']} questions{runs}, 95 % intervals"


def cells(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Every row's name and its texts, under :data:`HEADINGS`; several runs have an IQM after the accuracy."""
    found = []
    for name, row in result["rows"].items():
        label = row.get("label") or LABELS.get(name, name)
        if "prompt" in row:
            label += f" {row['prompt']!r}"
        gap = result["paired"].get(name)
        middle = f" (IQM {100 * row['iqm']:.1f})" if "iqm" in row else ""
        texts = [
            label,
            f"{100 * row['accuracy']:.1f}{middle}",
            f"{100 * row['ci'][0]:.1f} … {100 * row['ci'][1]:.1f}",
            f"{100 * row['format']:.0f}",
            f"{row['tokens']:.1f}",
            f"{row['gflops']:.1f}" if "gflops" in row else "",
            f"{100 * gap['difference']:+.1f}" if gap else "",
            f"{100 * gap['ci'][0]:+.1f} … {100 * gap['ci'][1]:+.1f}" if gap else "",
        ]
        found.append((name, texts))
    return found


def print_table(result: dict[str, Any], console: Console) -> None:
    """Accuracy of every row with its interval and cost, and trained minus the row, paired."""
    table = headed(title(result), HEADINGS)
    for name, texts in cells(result):
        table.add_row(*texts, style="bold" if name == "trained" else None)
    console.print(table)
    for line in remarks(result):
        console.print(line, highlight=False)


def print_markdown(result: dict[str, Any]) -> None:
    """The same on stdout, as a Markdown table."""
    print(f"{one_line(title(result))}\n")
    bold = ([f"**{text}**" if name == "trained" and text else text for text in texts] for name, texts in cells(result))
    print(markdown_table(HEADINGS, bold) + "\n")
    for line in remarks(result):
        print(f"- {one_line(line)}")


def remarks(result: dict[str, Any]) -> list[str]:
    """What the figures need beside them: sampled chains, what the latents are, cost, the frozen model's digest."""
    lines = []
    trained = result["rows"]["trained"]
    if "pass_at_k" in trained:
        k = trained["k"]
        lines.append(
            f"trained, {trained['samples']} sampled chains: pass@1 {trained['pass_at']['1']:.1%}, "
            f"pass@{k} {trained['pass_at_k']:.1%}, maj@{k} {trained['maj_at_k']:.1%}"
        )
    if {"mean", "shuffled"} <= set(result["paired"]):
        lines.append(explain_latents(result))
    if "cost" in result and "best_prompt" in result["paired"]:
        lines.append(explain_cost(result))
    if "digest" in result:
        digest = result["digest"]
        same = "unchanged" if digest["before"] == digest["after"] else "CHANGED"
        lines.append(f"main model {same}: digest {digest['after'][:16]}…")
    return lines


def explain_cost(result: dict[str, Any]) -> str:
    """What training took in all, and what a TFLOP of it bought over the best prompt."""
    cost = result["cost"]
    total = max(cost["flops"], 1)
    shares = ", ".join(
        f"{name} {cost[key] / total:.1%}"
        for name, key in (("main model", "main_flops"), ("assistant", "assistant_flops"), ("scorer", "scorer_flops"))
    )
    gained = 100 * result["paired"]["best_prompt"]["difference"] / (total / 1e12)
    return (
        f"training took {total / 1e12:.3g} TFLOP ({shares}), {cost['decodes'] + cost['search_decodes']:.0f} decodes, "
        f"{cost['seconds'] / 60:.1f} min: {gained:+.2f} points over the best prompt per TFLOP"
    )


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


RETENTION_HEADINGS = ("task", "n", "without %", "anchor %", "with latents %", "with − without", "paired interval")


def retention_cells(result: Mapping[str, Any]) -> list[list[str]]:
    """One line a task, under :data:`RETENTION_HEADINGS`."""
    rows = []
    for name, row in result["tasks"].items():
        low, high = row["difference"]["ci"]
        shares = [f"{100 * row[key]['accuracy']:.1f}" for key in ("without", "anchor", "with")]
        gap = f"{100 * row['difference']['difference']:+.1f}"
        rows.append([name, str(row["n"]), *shares, gap, f"{100 * low:+.1f} … {100 * high:+.1f}"])
    return rows


def retention_remark(result: Mapping[str, Any]) -> str:
    """Is the frozen model what it was?"""
    digest = result["digest"]
    same = "unchanged" if digest["before"] == digest["after"] else "CHANGED"
    return (
        f"without latents {result['identical']} of {result['of']} completions are identical to a fresh model's; "
        f"main model {same}: digest {digest['after'][:16]}…"
    )


def print_retention(result: dict[str, Any], console: Console, *, markdown: bool = False) -> None:
    """Other tasks without latents, with the anchor text alone, and with the trained latents."""
    rows = retention_cells(result)
    if markdown:
        print(f"{markdown_table(RETENTION_HEADINGS, rows)}\n\n- {one_line(retention_remark(result))}")
        return
    table = headed("other tasks, test questions, 95 % intervals", RETENTION_HEADINGS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(retention_remark(result), highlight=False)
