"""The checkpoints of a run: which are kept, which is the best, and which is the newest that can be trusted."""

import contextlib
import json
import os
import shutil
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlr_core.checkpoint import remove, write_checkpoint
from dlr_core.durable import SEAL, damage, read_seal
from dlr_core.errors import DamageWarning, RunFolderError
from dlr_core.settings import CheckpointSettings
from dlr_core.trainer import Trainer

PREFIX = "step-"


class Checkpoints:
    """Writes a run's checkpoints; keeps the newest few, and the best one if the settings say so.

    The best is the one before which the mean reward of ``checkpoint.every`` steps was highest.
    """

    def __init__(self, run: Path, settings: CheckpointSettings, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
        """Go on in a run folder.

        Args:
            run: the run folder.
            settings: how often, and how many are kept.
            earlier: the rows of metrics.jsonl that a resumed run goes on from.
        """
        self.run, self.settings = run, settings
        self._rewards = deque((row.get("reward") for row in earlier), maxlen=settings.every)

    def saw(self, metrics: Mapping[str, Any]) -> None:
        """Take a step's reward into account."""
        self._rewards.append(metrics.get("reward"))

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        return step % self.settings.every == 0

    def save(self, trainer: Trainer, stopped: str | None = None) -> Path:
        """Write ``step-NNNNNN`` and remove what need not be kept.

        Args:
            trainer: between two steps.
            stopped: why a logger has ended the run here, so that a resumed run does not train on.

        Raises:
            RunFolderError: it cannot be written.
        """
        rewards = [reward for reward in self._rewards if reward is not None]
        score = sum(rewards) / len(rewards) if rewards and self.settings.best else None
        return save_checkpoint(trainer, self.run / "checkpoints", self.settings.keep, score=score, stopped=stopped)


def save_checkpoint(
    trainer: Trainer, folder: Path, keep: int, *, score: float | None = None, stopped: str | None = None
) -> Path:
    """Write ``step-NNNNNN``; remove all but the ``keep`` newest and the one of the highest ``score``."""
    final = folder / f"{PREFIX}{trainer.step_number:06d}"
    write_checkpoint(trainer, final, step=trainer.step_number, score=score, stopped=stopped)
    kept = _all(folder)
    best = _best(kept)
    for old in kept[:-keep]:
        if old != best:
            with contextlib.suppress(OSError):  # one too many does no harm
                remove(old)
    for stray in folder.glob(f".{PREFIX}*"):  # of a run that was killed
        shutil.rmtree(stray, ignore_errors=True)
    return final


def _all(folder: Path) -> list[Path]:
    """Every checkpoint in a folder, the oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def _best(checkpoints: Sequence[Path]) -> Path | None:
    """The one of the highest score, the newest of equals; None where none has one."""
    found = [(read_seal(path).get("score"), path) for path in reversed(checkpoints)]
    scored = [(float(score), path) for score, path in found if isinstance(score, int | float)]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _flaw(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, sealed or older than seals; None if nothing is."""
    if not (checkpoint / "weights.safetensors").is_file():
        return "weights.safetensors is missing"
    state = checkpoint / "state.json"
    if not (checkpoint / SEAL).is_file() and state.is_file():
        try:
            sealed = "process" in json.loads(state.read_bytes())
        except (OSError, ValueError, TypeError):
            return "state.json cannot be read"
        return f"{SEAL} is missing" if sealed else None
    return damage(checkpoint)


def newest_intact(run: Path) -> tuple[Path, dict[Path, str]]:
    """The newest checkpoint that holds what was written, and what is wrong with each newer one.

    Raises:
        RunFolderError: there is none.
    """
    damaged: dict[Path, str] = {}
    for checkpoint in reversed(_all(run / "checkpoints")):
        reason = _flaw(checkpoint)
        if reason is None:
            return checkpoint, damaged
        damaged[checkpoint] = reason
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in damaged.items())
    raise RunFolderError(f"{run} has no intact checkpoint: {reasons}" if reasons else f"{run} has no checkpoint")


def has_checkpoint(run: Path) -> bool:
    """Whether a run has any, intact or not."""
    return bool(_all(run / "checkpoints"))


def latest_checkpoint(run: Path) -> Path:
    """The newest intact checkpoint of a run; warns of newer ones that are damaged.

    Raises:
        RunFolderError: there is none.
    """
    found, damaged = newest_intact(run)
    for path, reason in damaged.items():
        warnings.warn(f"{path} is damaged ({reason}); {found.name} is used", DamageWarning, stacklevel=2)
    return found


def best_checkpoint(run: Path) -> Path:
    """The checkpoint before which a run's reward was highest; the newest where none has been judged.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    best = _best(_all(run / "checkpoints"))
    if best is None:
        return latest_checkpoint(run)
    if reason := _flaw(best):
        raise RunFolderError(f"{best}, the run's best checkpoint, is damaged: {reason}")
    return best


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that no other is mistaken for older than it."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(checkpoint, aside)
    return aside
