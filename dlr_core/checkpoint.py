"""Checkpoints without pickle: tensors in safetensors, everything else in JSON; written aside, then renamed."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlr_core.errors import RunFolderError
from dlr_core.trainer import Trainer


def save_checkpoint(trainer: Trainer, folder: Path, keep: int) -> Path:
    """Write ``step-NNNNNN`` and remove all but the ``keep`` newest."""
    final = folder / f"step-{trainer.step_number:06d}"
    scratch = folder / f".{final.name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_weights(_parts(trainer), scratch)
    moments = _optimizer_tensors(trainer.optimizer.state_dict())
    scorer = {f"scorer.{k}": v for k, v in _scorer_optimizer(trainer).items()}
    save_file({**moments, **scorer, "generator": trainer.generator.get_state()}, scratch / "optimizer.safetensors")
    state = {
        "step": trainer.step_number,
        "seconds": trainer.seconds,
        "env": trainer.env.state(),
        "rehearsal": trainer.rehearsal.state(),
        "monitor": trainer.monitor.state(),
    }
    (scratch / "state.json").write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(scratch, final)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def latest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        RunFolderError: there is none.
    """
    found = sorted((folder / "checkpoints").glob("step-*"))
    if not found:
        raise RunFolderError(f"{folder} has no checkpoint")
    return found[-1]


def named_tensors(parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of modules, its module's name before its own; copies on the CPU."""
    return {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }


def fill(parts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put :func:`named_tensors` back into modules; RuntimeError if they do not fit."""
    for name, part in parts.items():
        prefix = name + "."
        part.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def save_weights(parts: Mapping[str, Any], checkpoint: Path) -> None:
    """Write modules by name into a checkpoint, for :func:`load_weights`."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(named_tensors(parts), checkpoint / "weights.safetensors")


def load_weights(parts: Mapping[str, Any], checkpoint: Path) -> None:
    """Restore modules by name from a checkpoint.

    Raises:
        RunFolderError: the file is damaged or was made by other settings.
    """
    try:
        fill(parts, load_file(checkpoint / "weights.safetensors"))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise RunFolderError(f"cannot restore {checkpoint}: {str(error).splitlines()[0]}") from None


def restore(trainer: Trainer, checkpoint: Path) -> None:
    """Continue exactly where a checkpoint was written.

    Raises:
        RunFolderError: a file is missing or damaged.
    """
    load_weights(_parts(trainer), checkpoint)
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(checkpoint / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFolderError(f"cannot restore {checkpoint}: {error}") from None
    trainer.generator.set_state(tensors.pop("generator"))
    scorer = {k.removeprefix("scorer."): v for k, v in tensors.items() if k.startswith("scorer.")}
    _load_optimizer(trainer.optimizer, {k: v for k, v in tensors.items() if not k.startswith("scorer.")})
    if scorer:
        _load_optimizer(trainer.scorer.optimizer, scorer)  # type: ignore[attr-defined]
    trainer.step_number, trainer.seconds = int(state["step"]), float(state["seconds"])
    trainer.env.restore(state["env"])
    trainer.monitor.restore(state.get("monitor", []))
    trainer.rehearsal.restore(state["rehearsal"])


def _parts(trainer: Trainer) -> dict[str, Any]:
    return {
        "assistant": trainer.assistant,
        "contrastive": trainer.contrastive,
        "scorer": trainer.scorer,
        "space": trainer.space,
    }


def _optimizer_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Adam's moments and step counters by parameter number."""
    tensors = {f"{n}.{key}": torch.as_tensor(v).cpu() for n, slot in state["state"].items() for key, v in slot.items()}
    return {k: v.contiguous().clone() for k, v in tensors.items()}


def _scorer_optimizer(trainer: Trainer) -> dict[str, Tensor]:
    optimizer = getattr(trainer.scorer, "optimizer", None)
    return _optimizer_tensors(optimizer.state_dict()) if optimizer is not None else {}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        slots.setdefault(int(number), {})[name] = value
    state["state"] = slots
    optimizer.load_state_dict(state)
