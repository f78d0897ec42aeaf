"""docs/results.md, from summaries of runs that are kept in benchmarks/results.

python benchmarks/results.py run --part 1/5   # trains that part of the runs (resumable), then renders
python benchmarks/results.py render           # the page from the summaries that are there

``make results PART=i/n`` is the first of the two. A summary holds settings, cost and every question's result, so that
the intervals on the page can be computed again from it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import accumulation
from dlr_cli.sweeping import as_markdown
from sheet import difference

from dlr_core.aggregate import bootstrap_runs
from dlr_core.assignments import read_toml
from dlr_core.sweep import bits, compare, expand, parse_part

HERE = Path(__file__).parent
KEPT = HERE / "results"
RUNS = Path("runs")
SWEEPS = {
    "tasks": "Tasks of different kinds, test questions",
    "shape": "What a chain is made of, validation questions",
    "closing": "Where the latents lie, test questions",
    "closing_syllogisms": "Where the latents lie on syllogisms, test questions",
    "horizons": "Longer chains, longer problems, test questions",
    "ablations": "One factor at a time, validation questions: its parts",
    "objective": "One factor at a time, validation questions: its objective",
    "ideas": "Published ideas, validation questions",
    "filter": "The filter before decoding, test questions",
    "filter_search": "The filter beside the search, test questions",
}
"""Sweep files and what their tables are called."""
ROWS = ("plain", "anchor", "best_prompt", "random", "mean", "shuffled", "trained")


def train(part: str) -> None:
    """One part of all runs; the last parts also learn the curriculum, a seed each."""
    number, count = parse_part(part)
    dlr = Path(sys.executable).with_name("dlr")
    for name in SWEEPS:
        plan, out = f"benchmarks/{name}.toml", str(RUNS / name)
        subprocess.run([dlr, "sweep", plan, "--out", out, "--part", part], check=True)
    accumulation.train(dlr, number, count)


def collect() -> None:
    """Take over what finished runs left, in the plan's order; rows that were kept before and are not there now stay."""
    KEPT.mkdir(exist_ok=True)
    for name in SWEEPS:
        fresh = read(RUNS / name / "summary.json") or []
        old = read(KEPT / f"{name}.json") or []
        rows = {(row["variant"], row["seed"]): row for row in [*old, *fresh]}
        planned = [(row.variant, row.seed) for row in expand(read_toml(HERE / f"{name}.toml"))]
        if rows:
            write(KEPT / f"{name}.json", [rows[key] for key in planned if key in rows])
    grown = {each["seed"]: each for each in read(KEPT / "curriculum.json") or []}
    for seed in accumulation.SEEDS:
        if found := read(accumulation.folder(seed) / "accumulation.json"):
            grown[seed] = {"seed": seed, **found}
    if grown:
        write(KEPT / "curriculum.json", [grown[seed] for seed in sorted(grown)])


def read(path: Path) -> Any:
    """A JSON file; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(path: Path, value: Any) -> None:
    """One line an entry of a list, so that versions can be compared."""
    if isinstance(value, list):
        text = "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]\n"
    else:
        text = json.dumps(value, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")


def tasks_table(rows: list[dict[str, Any]]) -> str:
    """Every task's control table, mean over seeds; what trained gains on each row; trained, seed by seed."""
    lines = ["| task | seeds | n | " + " | ".join(ROWS) + " |", "|---" * (3 + len(ROWS)) + "|"]
    gaps = ["| task | " + " | ".join(f"trained − {name}" for name in ROWS[:-1]) + " |", "|---" * len(ROWS) + "|"]
    every = sorted({row["seed"] for row in rows})
    heads = ["task", *(f"seed {seed}" for seed in every), "lowest gain on the anchor, where a run begins"]
    each_seed = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        shown = []
        for name in ROWS:
            (low, high), _ = bootstrap_runs([[bits(row, name) for row in own]])
            mean = sum(bits(row, name).mean() for row in own) / len(own)
            shown.append(f"{100 * mean:.1f} [{100 * low:.0f}, {100 * high:.0f}]")
        seeds = ", ".join(str(row["seed"]) for row in own)
        lines.append(f"| {variant} | {seeds} | {own[0]['n']} | " + " | ".join(shown) + " |")
        differences = []
        for name in ROWS[:-1]:
            each = [bits(row, "trained") - bits(row, name) for row in own]
            (low, high), _ = bootstrap_runs([each])
            mean = sum(gap.mean() for gap in each) / len(each)
            differences.append(difference(100 * mean, (100 * low, 100 * high)))
        gaps.append(f"| {variant} | " + " | ".join(differences) + " |")
        ends = {row["seed"]: f"{100 * bits(row, 'trained').mean():.1f}" for row in own}
        lowest = min(100 * (bits(row, "trained") - bits(row, "anchor")).mean() for row in own)
        each_seed.append(f"| {variant} | " + " | ".join(ends.get(seed, "") for seed in every) + f" | {lowest:+.1f} |")
    return "\n\n".join("\n".join(table) for table in (lines, gaps, each_seed))


def filter_table(rows: list[dict[str, Any]]) -> str:
    """Both selections against decoding everything, then the scorer's against the random one, which decodes as many."""
    selected = [row for row in rows if row["variant"] != rows[0]["variant"]]
    selected.sort(key=lambda row: "random" not in row["variant"])
    return as_markdown(compare(rows)) + "\n\nFor the same decodes:\n\n" + as_markdown(compare(selected))


TABLES = {"tasks": tasks_table, "horizons": tasks_table, "filter": filter_table, "filter_search": filter_table}
"""Sweeps that are more than variants compared with the first."""


def section(title: str, sweep: str, table: str) -> str:
    """A sweep's table under its title and the command that makes it."""
    return f"## {title}\n\n`dlr sweep benchmarks/{sweep}.toml --out runs/{sweep}`\n\n{table}"


def render() -> str:
    """The figures' part of docs/results.md; none of it is written by hand."""
    sections = []
    for name, title in SWEEPS.items():
        if rows := read(KEPT / f"{name}.json"):
            table = TABLES.get(name, lambda rows: as_markdown(compare(rows)))
            sections.append(section(title, name, table(rows)))
    if grown := read(KEPT / "curriculum.json"):
        sections.append(accumulation.section(grown))
    return "\n\n".join(sections or ["No sweep has been run to its end yet."]) + "\n"


def main() -> None:
    """Train if asked to, then rewrite the page below its marker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "render"))
    parser.add_argument("--part", default="1/1", help="which part of the runs, as i/n")
    asked = parser.parse_args()
    if asked.what == "run":
        train(asked.part)
    collect()
    page = HERE.parent / "docs" / "results.md"
    written, marker, _ = page.read_text(encoding="utf-8").partition("<!-- figures -->\n")
    page.write_text(written + marker + "\n" + render(), encoding="utf-8")
    print(f"wrote {page.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
