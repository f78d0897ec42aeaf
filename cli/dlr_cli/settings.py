"""Command-line options turned into a run's settings."""

from pathlib import Path
from typing import Any

from dlr_core.assignments import merge, parse_assignment, read_toml
from dlr_core.config import RunConfig, resolve
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost

PATHS = {
    "env": ("env",),
    "main_model": ("decoder", "model"),
    "assistant": ("assistant",),
    "reward": ("reward",),
    "contrastive": ("contrastive",),
    "scorer": ("scorer",),
    "estimator": ("estimator",),
    "seed": ("seed",),
}


def gather(
    config: Path | None, flags: dict[str, Any], assignments: list[str], steps: int | None, minutes: float | None,
    space: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The TOML file, then flags, then ``--set``, as one tree that is not yet validated.

    ``--steps`` alone lifts the default time limit, ``--minutes`` alone the default step limit.

    Raises:
        ConfigError: a file that cannot be read, or assignments that are none.
    """
    values = read_toml(config) if config else {}
    for flag, path in PATHS.items():
        if flags.get(flag) is not None:
            merge(values, path, flags[flag])
    if space is not None:
        merge(values, ("space",), space)
    if steps is not None or minutes is not None:
        values["steps"], values["minutes"] = steps, minutes
    for name in flags.get("logger") or ():
        listed = values.setdefault("loggers", [logger.name for logger in RunConfig.model_fields["loggers"].default])
        if isinstance(listed, list) and name not in listed:  # what is no list is refused with all else
            listed.append(name)
    problems: list[str] = []
    for text in assignments:
        try:
            merge(values, *parse_assignment(text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return values


def settle(
    host: PluginHost, config: Path | None, flags: dict[str, Any], assignments: list[str], steps: int | None,
    minutes: float | None, space: str | None,
) -> RunConfig:  # fmt: skip
    """Defaults under what :func:`gather` gathers, validated."""
    return resolve(gather(config, flags, assignments, steps, minutes, space), host)
