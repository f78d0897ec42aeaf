"""Every benchmark, one after another, each in a process of its own; then docs/benchmarks.md.

python benchmarks/bench.py                               # all of them
python benchmarks/bench.py decode_k8_p200 start_up       # these
python benchmarks/bench.py --render                      # the page alone, from results.json

``make bench`` (``make bench ONLY="start_up"``) is the first of these. The long ones, learning and the filter, train
only the pieces that are missing from benchmarks/pieces, and go on there when they were interrupted.
"""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from entries import ABOUT, HERE, read

PAGE = HERE.parent / "docs" / "benchmarks.md"
MARKER = "<!-- figures -->\n"
LONG = ("learn_vs_grpo", "filter_total_cost")
"""Those that train in pieces."""


def lines(names: Sequence[str]) -> list[list[str]]:
    """What is started for some benchmarks, each script once."""
    scripts = {ABOUT[name].script: ["run"] if name in LONG else [] for name in ABOUT if name in names}
    return [[sys.executable, str(HERE / script), *more] for script, more in scripts.items()]


def render(folder: Path = HERE) -> str:
    """The page's figures; none of it is written by hand."""
    found = read(folder)
    rows = ["| benchmark | ratio | spread | n | goal | what is divided |", "|---|---:|---|---:|---:|---|"]
    for name, about in ABOUT.items():
        shown = "not measured yet | | "
        if name in found:
            entry = found[name]
            shown = f"{entry['ratio']:.2f} | {entry['low']:.2f} … {entry['high']:.2f} | {entry['n']}"
        rows.append(f"| `{name}` | {shown} | ≥ {about.goal:g} | {about.meaning} |")
    parts = ["\n".join(rows)]
    for name, about in ABOUT.items():
        if name in found:
            entry = found[name]
            script = importlib.import_module(about.script.removesuffix(".py"))
            table = script.sheet(entry["measured"]).markdown()
            if hasattr(script, "remark"):
                table += f"\n\n{script.remark(entry['measured'])}"
            if hasattr(script, "more") and (more := script.more(entry["measured"])).rows:
                table += f"\n\n{more.markdown()}"
            picture = f"![{about.meaning}](../benchmarks/{name}.png)"
            load = f", load {entry['load']} at its end" if "load" in entry else ""
            about_it = f"`{entry['command']}` on {entry['machine']}{load}:"
            parts.append(f"## {name}\n\n{about_it}\n\n{table}\n\n{picture}")
    return "\n\n".join(parts) + "\n"


def write_page() -> None:
    """Everything below the marker anew."""
    written, marker, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
    PAGE.write_text(written + marker + "\n" + render(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, render; how many scripts failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ABOUT)}; all if none is given")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if name not in ABOUT]
    if unknown:
        parser.error(f"no benchmark named {unknown[0]!r}; known: {', '.join(ABOUT)}")
    failed = 0
    for line in [] if args.render else lines(args.names or list(ABOUT)):
        print("$", " ".join(["python", f"benchmarks/{Path(line[1]).name}", *line[2:]]), flush=True)
        failed += subprocess.run(line, check=False).returncode != 0
    write_page()
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
