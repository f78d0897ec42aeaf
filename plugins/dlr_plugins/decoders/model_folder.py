"""Can a model folder be what its config.json says? Looked at before anything is built from it.

A config.json may ask for a billion layers, or for matrices that no machine holds; what is built has to be in the files.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from dlr_core.errors import ModelError

LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
WIDTHS = ("hidden_size", "n_embd", "d_model")
OTHERS = ("vocab_size", "intermediate_size", "n_inner", "ffn_dim", "num_attention_heads", "n_head",
          "num_key_value_heads", "head_dim")  # fmt: skip
"""Sizes of which there is a matrix of a width by each, at one bit a parameter or more."""
LONGEST_HEADER = 100_000_000


def check_folder(folder: Path) -> None:
    """Hold config.json against the weights' files.

    Raises:
        ModelError: it has no config.json or no safetensors, one of them is damaged, or the config asks for more than
            the files hold.
    """
    config = _config(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} is not a model folder: it has no .safetensors file (others may hold code)")
    names = [name for file in files for name in _tensors(file)]
    bits = 8 * sum(file.stat().st_size for file in files)
    nested = [value for value in config.values() if isinstance(value, dict)]
    for table in (config, *nested):
        for key in LAYERS:
            if _whole(table, key, folder) > max(len(names), 1):
                raise ModelError(
                    f"{folder}: config.json asks for {key}={table[key]}, the files hold {len(names)} tensors"
                )
        sizes = [_whole(table, key, folder) for key in (*WIDTHS, *OTHERS)]
        widest = max(_whole(table, key, folder) for key in WIDTHS)
        if widest * max(sizes) > bits:
            raise ModelError(
                f"{folder}: config.json asks for a matrix of {widest} × {max(sizes)}, more than the files hold"
            )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected an object, got {type(config).__name__}")
    return config


def _whole(table: dict[str, Any], key: str, folder: Path) -> int:
    """A size of a config; 0 where it names none."""
    value = table.get(key)
    if value is None or isinstance(value, list | dict):  # lists: sizes layer by layer, judged when the model is built
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ModelError(f"{folder}: config.json: {key}: expected a whole number, got {value!r}")
    return value


def _tensors(file: Path) -> list[str]:
    """Names in a safetensors header, its tensors' places held against the file's size."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(LONGEST_HEADER, size - 8):
                raise ValueError("it ends within its header")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        for name, about in header.items():
            begin, end = about["data_offsets"]
            if not 0 <= begin <= end <= size - 8 - length or prod(about["shape"]) < 0:
                raise ValueError(f"tensor {name!r} lies outside of it")
        return list(header)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ModelError(f"{file} is no whole safetensors file: {error}") from None
