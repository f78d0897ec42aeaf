"""Checkpoints without pickle: tensors in safetensors, everything else in JSON; written aside, sealed, then renamed."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dlr_core.durable import SEAL, damage, read_seal, seal, sync, write_whole
from dlr_core.errors import RunFolderError, first_line, kind_and_line
from dlr_core.generators import TORCH, process_state, restore_process
from dlr_core.trainer import Trainer


def write_checkpoint(trainer: Trainer, final: Path, **about: Any) -> None:
    """Write everything that a run needs to go on into a new folder, which appears whole or not at all.

    Args:
        trainer: between two steps.
        final: the folder. An intact one of that name is kept: nothing has happened since it was written.
        about: what its seal says besides, JSON-ready.

    Raises:
        RunFolderError: it cannot be written; nothing of it is left.
    """
    scratch = final.with_name(f".{final.name}.tmp")
    try:
        if (old := read_seal(final)) and damage(final) is None:
            if {**old, **about} != old:
                write_whole(final / SEAL, json.dumps({**old, **about}, indent=2) + "\n")
            return
        shutil.rmtree(scratch, ignore_errors=True)
        _write(trainer, scratch)
        seal(scratch, **about)
        if final.exists():
            remove(final)
        os.replace(scratch, final)
        sync(final.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RunFolderError(f"cannot write the checkpoint {final}: {reason}; earlier ones are as they were") from error


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, renamed first: half of one never bears a checkpoint's name."""
    dying = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(dying, ignore_errors=True)
    os.replace(checkpoint, dying)
    shutil.rmtree(dying, ignore_errors=True)


def _write(trainer: Trainer, folder: Path) -> None:
    save_weights(_parts(trainer), folder)
    moments = _optimizer_tensors(trainer.optimizer.state_dict())
    scorer = {f"scorer.{k}": v for k, v in _scorer_optimizer(trainer).items()}
    process, generators = process_state()
    generators["generator"] = trainer.generator.get_state()
    (folder / "optimizer.safetensors").write_bytes(save({**moments, **scorer, **generators}))
    state = {
        "step": trainer.step_number,
        "seconds": trainer.seconds,
        "skipped_in_row": trainer.updates.in_row,
        "env": trainer.env_state(),
        "rehearsal": trainer.rehearsal.state(),
        "monitor": trainer.monitor.state(),
        "process": process,
    }
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


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
    (checkpoint / "weights.safetensors").write_bytes(save(named_tensors(parts)))


def load_weights(parts: Mapping[str, Any], checkpoint: Path) -> None:
    """Restore modules by name from a checkpoint.

    Raises:
        RunFolderError: the file is damaged or was made by other settings.
    """
    try:
        fill(parts, load_file(checkpoint / "weights.safetensors"))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise RunFolderError(f"cannot restore {checkpoint}: {first_line(error)}") from None


def restore(trainer: Trainer, checkpoint: Path) -> None:
    """Continue exactly where a checkpoint was written.

    Raises:
        RunFolderError: a file is missing, damaged, or was made by other settings.
    """
    load_weights(_parts(trainer), checkpoint)
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        _restore_state(trainer, state, load_file(checkpoint / "optimizer.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, SafetensorError) as error:
        reason = kind_and_line(error)
        raise RunFolderError(f"cannot restore {checkpoint}: {reason}") from error


def _restore_state(trainer: Trainer, state: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    trainer.generator.set_state(tensors.pop("generator"))
    process = {key: tensors.pop(key) for key in list(tensors) if key.startswith(TORCH)}
    scorer = {k.removeprefix("scorer."): v for k, v in tensors.items() if k.startswith("scorer.")}
    _load_optimizer(trainer.optimizer, {k: v for k, v in tensors.items() if not k.startswith("scorer.")})
    if scorer:
        _load_optimizer(trainer.scorer.optimizer, scorer)  # type: ignore[attr-defined]
    trainer.step_number, trainer.seconds = int(state["step"]), float(state["seconds"])
    trainer.updates.in_row = int(state.get("skipped_in_row", 0))
    trainer.restore_env(state["env"])
    trainer.monitor.restore(state.get("monitor", []))
    trainer.rehearsal.restore(state["rehearsal"])
    if process:  # last: what is above may draw
        restore_process(state["process"], process)


def _parts(trainer: Trainer) -> dict[str, Any]:
    """What has weights; an estimator or a reward need not have any."""
    parts: dict[str, Any] = {
        "assistant": trainer.assistant,
        "contrastive": trainer.contrastive,
        "scorer": trainer.scorer,
        "space": trainer.space,
    }
    more = {"estimator": trainer.estimator, "reward": trainer.env.engine.reward}
    return parts | {name: part for name, part in more.items() if hasattr(part, "state_dict")}


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
