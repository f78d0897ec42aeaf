"""Command-line options turned into a run's settings."""

from pathlib import Path
from typing import Any

from dlr_core.config import RunConfig, merge, parse_assignment, read_toml, resolve
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
        if name not in listed:
            listed.append(name)
    for text in assignments:
        merge(values, *parse_assignment(text))
    return values


def settle(
    host: PluginHost, config: Path | None, flags: dict[str, Any], assignments: list[str], steps: int | None,
    minutes: float | None, space: str | None,
) -> RunConfig:  # fmt: skip
    """Defaults under what :func:`gather` gathers, validated."""
    return resolve(gather(config, flags, assignments, steps, minutes, space), host)
