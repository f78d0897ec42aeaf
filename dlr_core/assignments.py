"""Settings as they are given: a TOML file, ``--set key=value``, a component's bare name for its table."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlr_core.errors import ConfigError, shown
from dlr_core.values import DEPTH

COMPONENTS = ("assistant", "reward", "contrastive", "scorer", "estimator", "space")
"""Settings that name a part and hold its options."""


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, a number without end
        raise ConfigError(f"cannot read the config file {path}: {error}") from None


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """``a.b=value`` as a path and a value: TOML where it parses as such, else text.

    Raises:
        ConfigError: no key or no equals sign.
    """
    key, equals, raw = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path) or len(path) > DEPTH:
        raise ConfigError(f"--set: expected key=value, got {shown(text)}")
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return path, raw
    return path, parsed["value"] if len(parsed) == 1 else raw


def merge(base: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested key in place; a component's bare name may stand for its table."""
    for key in path[:-1]:
        inner = base.get(key)
        if isinstance(inner, str) and key in COMPONENTS:
            inner = {"name": inner}
        base[key] = dict(inner) if isinstance(inner, Mapping) else {}
        base = base[key]
    old = base.get(path[-1])
    if isinstance(value, str) and len(path) == 1 and path[0] in COMPONENTS:
        keep = old if isinstance(old, Mapping) and old.get("name") == value else {}
        value = {**keep, "name": value}
    base[path[-1]] = value
