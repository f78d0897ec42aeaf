"""``dlr doctor``: could a run work here?"""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    main_model: Annotated[
        str, typer.Option(help="Frozen model: smollm2-135m, a folder, a .gguf file or a hub id.")
    ] = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder that runs are to be written in.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at what is installed, plugins, device, main model, network, disk, memory, and the folder for runs.

    Every warning and problem comes with what to do. Exit code 1 if a run could not work. Nothing is downloaded or
    trained, and a network that does not answer is waited for a few seconds only. Example: dlr doctor
    """
    import json
    from dataclasses import asdict

    from dlr_cli.examining import examine, print_checks

    checks = examine(main_model, out)
    fine = all(check.state != "problem" for check in checks)
    if as_json:
        print(json.dumps({"ok": fine, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        print_checks(checks)
    if not fine:
        raise typer.Exit(1)
