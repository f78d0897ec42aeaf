"""``dlr plugins``: what is installed, whether it keeps its contracts, and a start for a new one."""

from pathlib import Path
from typing import Annotated, Any

import typer

plugins_app = typer.Typer(help="List plugin packages, check their parts, begin a new one.", no_args_is_help=True)


@plugins_app.callback()
def _group() -> None:
    """List plugin packages, check their parts, begin a new one. DLR_PLUGINS=a,b loads the built-ins and those only."""


@plugins_app.command("list")
def listing(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List plugins: name, distribution, what each adds, or why it was skipped.

    Example: DLR_PLUGINS=acme dlr plugins list
    """
    import json

    from rich.table import Table

    from dlr_cli.table import open_console
    from dlr_core.host import KINDS, PluginHost

    host = PluginHost.from_entry_points()
    rows: list[dict[str, Any]] = []
    for name, distribution in host.distributions.items():
        adds = {kind: [e.name for e in host.entries(kind) if e.plugin == name] for kind in KINDS}
        added = {kind: names for kind, names in adds.items() if names}
        rows.append({"name": name, "distribution": distribution, "adds": added, "skipped": None})
    rows += [{"name": s.plugin, "distribution": s.distribution, "adds": {}, "skipped": s.reason} for s in host.skipped]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("plugin", "distribution", "adds")
    for row in rows:
        parts = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in row["adds"].items())
        table.add_row(row["name"], row["distribution"], f"skipped: {row['skipped']}" if row["skipped"] else parts)
    open_console().print(table)


@plugins_app.command("check")
def check(
    plugin: Annotated[str, typer.Argument(help="Plugin's name, as `dlr plugins list` shows it.")],
    main_model: Annotated[
        str | None, typer.Option(help="Frozen model for parts that need one, as spaces do; else they are left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Check that a plugin's parts keep their contracts: shapes, determinism, gradients, options, the frozen model.

    Exit code 1 if one does not. The same checks are in `dlr_core.testing`, for a plugin's own tests.
    Example: dlr plugins check acme --main-model smollm2-135m
    """
    import json
    from dataclasses import asdict

    from dlr_cli.host import load_host
    from dlr_core.plain import one_line
    from dlr_core.testing import check_plugin

    host = load_host()
    decoder = host.create("decoder", "hf", {"model": main_model}) if main_model else None
    found = check_plugin(host, plugin, decoder)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            mark = "ok  " if finding.ok else "FAIL"
            reason = f": {finding.reason}" if finding.reason else ""
            print(one_line(f"{mark} {finding.kind} {finding.name}{reason}"))
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)


@plugins_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin, such as acme: lower-case letters, digits, hyphens.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of part, reward by default; may be given several times: assistant, control, baseline, reward, "
            "contrastive, scorer, estimator, space, refiner, decoder, task, env, logger."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; dlr-NAME by default.")] = None,
) -> None:
    """Write an installable plugin package with a part of each wanted kind, tests that pass, and a CI workflow.

    Example: dlr plugins new acme --kind task --kind reward; pip install -e dlr-acme; dlr run --reward acme
    """
    from dlr_cli.scaffold import uses, write_package

    kinds = kind or ["reward"]
    folder = write_package(name, out or Path(f"dlr-{name}"), kinds)
    print(
        f"wrote {folder}: pip install -e {folder}, then",
        *[f"dlr plugins check {name}", *uses(name, kinds)],
        sep="\n    ",
    )
