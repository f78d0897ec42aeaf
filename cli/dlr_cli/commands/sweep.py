"""``dlr sweep``: variants of one run under several seeds."""

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    plan: Annotated[Path, typer.Argument(help="TOML file of the sweep.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of summary.json.")] = Path("runs/sweep"),
    part: Annotated[str | None, typer.Option(metavar="I/N", help="Only every N-th run, from the I-th on.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and stop.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Train every variant under every seed, one run after another, and compare them with the first variant.

    A sweep file has [base] (settings of all runs), seeds, and [[variants]] (name, set, seeds of its own) or a [grid] of
    dotted settings. Runs that have ended are not repeated: the same command goes on where it stopped. Rows of the
    tables are kept in summary.json. Example: dlr sweep benchmarks/ablations.toml --out runs/ablations --part 1/3
    """
    from dlr_cli.sweeping import run_sweep
    from dlr_core.assignments import read_toml
    from dlr_core.sweep import expand, parse_part

    rows = expand(read_toml(plan))
    chosen = rows
    if part is not None:
        number, count = parse_part(part)
        chosen = rows[number - 1 :: count]
    run_sweep(rows, chosen, out, dry_run=dry_run, markdown=markdown, as_json=as_json)
