"""Getting a causal language model from a name: the default, a folder, a GGUF file, or the hub."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from dlr_core.errors import ConfigError, ModelError
from dlr_plugins.decoders import smollm2

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(name: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer, without remote code and without pickle.

    Raises:
        ConfigError: unknown device or dtype.
        ModelError: the model cannot be had; the message says what to do.
    """
    logging.disable_progress_bar()  # the command line shows its own
    place = _device(device)
    kind = _dtype(dtype, place)
    source: dict[str, Any] = {"trust_remote_code": False}
    path = Path(name).expanduser()
    if name == smollm2.NAME:
        where = str(smollm2.folder())
    elif path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"no GGUF file at {path}")
        where, source["gguf_file"] = str(path.parent), path.name
    elif path.exists():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is not a model folder: it has no config.json")
        where = str(path)
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(f"no main model at {name!r}: expected {smollm2.NAME}, a folder, a .gguf file or a hub id")
    else:
        where = name
    local = where != name or path.exists()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **source)
        weights = {} if "gguf_file" in source else {"use_safetensors": True}
        model = AutoModelForCausalLM.from_pretrained(where, dtype=kind, **source, **weights)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local:
            raise ModelError(f"cannot load a causal language model from {name!r}: {reason}") from None
        raise ModelError(
            f"cannot get {name!r} from the hub ({reason}); check the name and the network, "
            f"or give a folder or .gguf file with --main-model"
        ) from None
    return model.to(place), tokenizer


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"decoder.device: cannot use {name!r}: {str(error).splitlines()[0]}") from None


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"decoder.dtype: expected auto, {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]
