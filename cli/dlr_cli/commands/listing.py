"""``dlr list``: what is registered."""

from typing import Annotated

import typer


def listing(
    kind: Annotated[
        str | None, typer.Argument(help="Only this kind: assistant, reward, estimator, space, env …")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: kind → list of components.")] = False,
) -> None:
    """List every registered component: name, the plugin it comes from, and what it is.

    Example: dlr list estimator
    """
    import json

    from rich.table import Table

    from dlr_cli.host import load_host
    from dlr_cli.table import open_console
    from dlr_core.errors import ConfigError, unknown_name
    from dlr_core.host import KINDS

    if kind is not None and kind not in KINDS:
        raise ConfigError(unknown_name("kind", kind, KINDS))
    host = load_host()
    chosen = {k: host.entries(k) for k in KINDS if kind in (None, k)}
    if as_json:
        rows = {k: [{"name": e.name, "plugin": e.plugin, "summary": e.summary} for e in v] for k, v in chosen.items()}
        print(json.dumps(rows, indent=2))
        return
    table = Table("kind", "name", "plugin", "summary")
    for entries in chosen.values():
        for entry in entries:
            table.add_row(entry.kind, entry.name, entry.plugin, entry.summary)
    open_console().print(table)
