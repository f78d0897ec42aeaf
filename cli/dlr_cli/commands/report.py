"""``dlr report``: runs as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
) -> None:
    """Write runs into one self-contained HTML file: control tables, curves, cost, retention, sample traces.

    It shows what the folders hold and measures nothing: `dlr eval --retention RUN` adds the retention table. Runs of
    one environment share one control table. Example: dlr report runs/seed0 runs/seed1 --out seeds.html
    """
    from dlr_cli.report.page import render
    from dlr_core.errors import RunFolderError

    page = render(runs)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror or error}") from None
    print(f"wrote {out} ({out.stat().st_size / 1024:.0f} KiB)")
