"""What ends a run before its limits: no finite update any more, or a main model that is not frozen after all."""

import sys
from pathlib import Path
from typing import Any

from dlr_core.assignments import COMPONENTS
from dlr_core.checkpoint import write_checkpoint
from dlr_core.config import RunConfig
from dlr_core.errors import ConfigError, DivergedError, PluginError
from dlr_core.host import OWN, PluginHost
from dlr_core.trainer import Trainer


def require_finite(trainer: Trainer, run: Path) -> None:
    """Say which updates the last step left out, and end the run once they are too many in a row.

    Raises:
        DivergedError: they are; the state is in ``diverged/step-NNNNNN``, a checkpoint like any other.
    """
    updates, step = trainer.updates, trainer.step_number
    if updates.stuck:
        final = run / "diverged" / f"step-{step:06d}"
        write_checkpoint(trainer, final, step=step, reason=updates.reason)
        raise DivergedError(
            f"step {step}: {updates.in_row} steps in a row had no finite loss or gradient ({updates.reason}); "
            f"the state is saved in {final}, earlier checkpoints are as they were"
        )
    if updates.skipped:
        print(f"warning: step {step}: {updates.skipped} updates left out ({updates.reason})", file=sys.stderr)


def require_unchanged(before: str, after: str, config: RunConfig, host: PluginHost) -> None:
    """Hold the main model to its digest.

    Raises:
        PluginError: it has changed; parts of the run that come from elsewhere are named.
    """
    if after != before:
        raise PluginError(
            f"the main model was changed during the run (digest {before[:12]}…, now {after[:12]}…), so its checkpoints "
            f"are worth nothing; parts from other plugins: {_foreign(config, host) or 'none'}"
        )


def _foreign(config: RunConfig, host: PluginHost) -> str:
    """The run's parts that are not this project's own."""
    chosen: list[tuple[str, Any]] = [(kind, getattr(config, kind).name) for kind in COMPONENTS]
    chosen += [("decoder", config.decoder.name), ("env", config.env), ("task", config.task.name)]
    chosen += [("logger", logger.name) for logger in config.loggers]
    found = []
    for kind, name in chosen:
        try:
            plugin = host.find(kind, name).plugin if name else OWN[0]
        except ConfigError:  # the folder of a saved space
            continue
        if plugin not in OWN:
            found.append(f"{kind} {name!r} of plugin {plugin!r}")
    return ", ".join(found)
