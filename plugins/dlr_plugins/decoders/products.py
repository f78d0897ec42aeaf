"""What frozen weights are multiplied by: which products are asked for, and which there are on a machine."""

import logging
import platform
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from dlr_core.errors import ConfigError

_log = logging.getLogger(__name__)
Products = Literal["float32", "bfloat16"]
Packing = Literal["float32", "bfloat16", "float16"]
ASKED_BY = {"bfloat16": "decoder.products=bfloat16", "float16": "decoder.weights=float16"}
"""The setting that weights are packed so for."""


def check_products(products: Products, *, packed: bool, weights: str) -> None:
    """Refuse settings that contradict each other, before a model is loaded.

    Raises:
        ConfigError: bfloat16 products of copies that are not to be made.
    """
    if products != "float32" and not (packed and weights == "full"):
        raise ConfigError(
            f"decoder.products={products}: only packed copies of full weights multiply so; got "
            f"decoder.packed={str(packed).lower()}, decoder.weights={weights}"
        )


def packing_here(products: Products, weights: str, device: torch.device, dtype: torch.dtype) -> Packing:
    """What weights are to be packed in, float32 where there is nothing else: so a run can be opened on any machine.

    What is left out, or is likely to be slow, is logged.
    """
    asked: Packing = "float16" if weights == "float16" else products
    if asked == "float32":
        return asked
    if device.type != "cpu" or dtype != torch.float32:
        reason = f"the model is in {str(dtype).removeprefix('torch.')} on {device.type}"
    elif asked == "float16" and not multiplies_float16():
        reason = "there is no FBGEMM for this CPU"
    elif asked == "bfloat16" and not multiplies_bfloat16():
        reason = "this CPU has no such products"
    else:
        if asked == "bfloat16" and not torch.cpu._is_amx_tile_supported():
            _log.warning("%s: this CPU has no AMX, so they are likely slower than float32", ASKED_BY[asked])
        return asked
    without = "rounds weights, and nothing is gained" if asked == "float16" else "is left out"
    _log.warning("%s %s: %s", ASKED_BY[asked], without, reason)
    return "float32"


def multiplies_float16() -> bool:
    """Whether FBGEMM multiplies weights in float16 here."""
    return torch.backends.quantized.engine in ("fbgemm", "x86")


def multiplies_bfloat16() -> bool:
    """Whether oneDNN has such products here, fast or slow."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def mkl_is_faster() -> bool:
    """Whether PyTorch's own float32 product is MKL's, and weights in a row are better multiplied by it than by oneDNN.

    oneDNN brings them into an order first. It is faster all the same with AVX-512 on a CPU that is not Intel's, for
    which MKL has no such kernels.
    """
    listed = Path("/proc/cpuinfo")
    maker = listed.read_text(encoding="utf-8") if listed.exists() else platform.processor()
    at_home = "GenuineIntel" in maker or not torch.cpu._is_avx512_supported()
    return torch.backends.mkl.is_available() and at_home
