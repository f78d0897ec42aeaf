"""Going on with a run exactly where it was left, and what is said aloud where that is not possible."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlr_core.checkpoint import restore
from dlr_core.checkpoints import has_checkpoint, newest_intact, set_aside
from dlr_core.config import RunConfig
from dlr_core.durable import read_seal
from dlr_core.errors import ModelError
from dlr_core.trainer import Trainer


def go_on(
    trainer: Trainer, run: Path, manifest: Mapping[str, Any], config: RunConfig, main_model: Mapping[str, str]
) -> str | None:
    """Restore a run's newest intact checkpoint; damaged ones are kept under another name.

    Args:
        trainer: newly built from the run's settings; it is left as it is where the run has no checkpoint yet.
        run: the run folder, open for writing.
        manifest: as the run left it.
        config: its settings now; ``steps`` and ``minutes`` may have changed.
        main_model: ``digest``, ``device`` and ``dtype`` of the main model now.

    Returns:
        Why a logger has ended the run here, if one has and the limits are what they were: there is nothing to train.

    Raises:
        ModelError: it was trained on another main model.
        RunFolderError: no checkpoint is intact, or it was made by other settings.
    """
    _require_same_model(manifest.get("main_model", {}), main_model, run)
    if not has_checkpoint(run):
        _warn(f"{run} was ended before its first checkpoint: it begins again at step 1")
        return None
    checkpoint, damaged = newest_intact(run)
    for path, reason in damaged.items():
        aside = set_aside(path)
        _warn(f"checkpoint {path.name} is damaged ({reason}): kept as {aside.name}, going on from {checkpoint.name}")
    restore(trainer, checkpoint)
    stopped: str | None = read_seal(checkpoint).get("stopped")
    then = manifest["config"]
    return stopped if (then.get("steps"), then.get("minutes")) == (config.steps, config.minutes) else None


def _require_same_model(then: Mapping[str, Any], now: Mapping[str, str], run: Path) -> None:
    if then.get("digest_before") in (None, now["digest"]):
        return
    moved = [key for key in ("device", "dtype") if then.get(key) not in (None, now[key])]
    if not moved:
        was = str(then["digest_before"])[:12]
        raise ModelError(f"{run} was trained on another main model: digest {was}…, this one's is {now['digest'][:12]}…")
    changes = ", ".join(f"{key} {then[key]} then, {now[key]} now" for key in moved)
    _warn(f"the main model is not where it was ({changes}): the run goes on, but not bit for bit")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
