"""The tasks of tasks.toml, ready to be asked."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlr_cli.host import load_host

from dlr_core.assignments import read_toml
from dlr_core.config import resolve
from dlr_core.pipeline import make_engine
from dlr_core.sweep import expand


def engines(names: Sequence[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Name and engine of each task, one after another; all of them if none is named."""
    settings = {row.variant: row.values for row in expand(read_toml(Path(__file__).with_name("tasks.toml")))}
    host = load_host()
    for name in names or settings:
        yield name, make_engine(resolve(settings[name], host), host)
