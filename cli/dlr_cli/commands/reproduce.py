"""``dlr reproduce``: a run made again from its manifest."""

from pathlib import Path
from typing import Annotated

import typer


def reproduce(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Only its first steps; all by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new run; RUN-reproduced by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in that folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a run's settings with its seed again, and say at which step which metric first differs, if one does.

    It stops there. Exit code 0: every metric of all steps is the same to the last bit, and so are the weights where the
    run kept a checkpoint of the last step; 1: something differs; 2: it cannot be made again. Times are left out. It
    warns of package versions, code, machine and main model that differ from the manifest's: bits are not promised then.

    A run takes as many steps as it took, however long they take now. Where minutes were the nearer limit, its learning
    rates followed the clock; that reading was logged, and is given back. How many steps fit into the minutes is not
    reproduced. Example: dlr reproduce runs/main --steps 10
    """
    import json

    from dlr_cli.host import load_host
    from dlr_cli.reproducing import make_again
    from dlr_cli.table import open_console

    again = out or run.with_name(f"{run.resolve().name}-reproduced")
    result = make_again(run, load_host(), again, steps=steps, overwrite=overwrite, console=open_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))
    if not result["identical"]:
        raise typer.Exit(1)
