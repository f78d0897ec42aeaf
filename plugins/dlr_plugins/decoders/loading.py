"""Getting a causal language model from a name: the default, a folder, a GGUF file, or the hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from dlr_core.errors import ConfigError, ModelError, first_line
from dlr_core.paths import expanded, is_file, is_folder
from dlr_plugins.decoders import smollm2
from dlr_plugins.decoders.gguf_header import check_gguf
from dlr_plugins.decoders.model_folder import check_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHOWN = 3
"""Tensors that a message names."""


def load(name: str, device: str, dtype: str, placed: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """Model and tokenizer, without remote code and without pickle.

    Args:
        name: smollm2-135m, a folder, a .gguf file, or a hub id.
        device: where the model goes.
        dtype: of its weights.
        placed: how it is spread instead, as ``from_pretrained`` takes it.

    Raises:
        ConfigError: unknown device or dtype.
        ModelError: the model cannot be had, or is damaged; the message says what to do.
    """
    logging.disable_progress_bar()  # the command line shows its own
    place = device_named(device)
    kind = dtype_named(dtype, place)
    source: dict[str, Any] = {"trust_remote_code": False}
    path = expanded(name)
    if name == smollm2.NAME:
        where = str(smollm2.folder())
    elif path.suffix == ".gguf":
        if not is_file(path):
            raise ModelError(f"no GGUF file at {path}")
        check_gguf(path)
        where, source["gguf_file"] = str(path.parent), path.name
    elif is_folder(path) or is_file(path):
        check_folder(path)
        where = str(path)
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(f"no main model at {name!r}: expected {smollm2.NAME}, a folder, a .gguf file or a hub id")
    else:
        where = name
    local = where != name or is_folder(path)
    weights = {} if "gguf_file" in source else {"use_safetensors": True}
    try:
        with silence():
            tokenizer = AutoTokenizer.from_pretrained(where, **source)
            model, found = AutoModelForCausalLM.from_pretrained(
                where, dtype=kind, output_loading_info=True, **source, **weights, **(placed or {})
            )
    except Exception as error:  # a stranger's files may make the libraries raise anything
        reason = first_line(error)
        if local:
            raise ModelError(f"cannot load a causal language model from {name!r}: {reason}") from None
        raise ModelError(
            f"cannot get {name!r} from the hub ({reason}); check the name and the network, "
            f"or give a folder or .gguf file with --main-model"
        ) from None
    _complete(name, found)
    return model if placed else model.to(place), tokenizer


def _complete(name: str, found: Any) -> None:
    """Refuse a model part of which Transformers would have made up."""
    for key, what in (("missing_keys", "are missing"), ("mismatched_keys", "have another shape than config.json says")):
        tensors = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in found.get(key) or ())
        if tensors:
            more = f" and {len(tensors) - SHOWN} more" if len(tensors) > SHOWN else ""
            raise ModelError(f"cannot load {name!r}: {', '.join(tensors[:SHOWN])}{more} {what}")


@contextmanager
def silence() -> Iterator[None]:
    """What Transformers would print of a stranger's files; what matters of it is raised."""
    before, spreading = logging.get_verbosity(), getLogger("accelerate.big_modeling")
    logging.set_verbosity_error()
    spreading.disabled = True  # it would say that weights are offloaded, and that is said in our words
    try:
        yield
    finally:
        logging.set_verbosity(before)
        spreading.disabled = False


def device_named(name: str) -> torch.device:
    """The device that a setting means; ConfigError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"decoder.device: cannot use {name!r}: {first_line(error)}") from None


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The dtype that a setting means on a device; ConfigError if there is none of that name."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"decoder.dtype: expected auto, {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]
