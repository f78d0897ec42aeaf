"""Prompt embeddings on the wire: base64 of what ``torch.save`` writes, as vLLM takes them, and read without pickle.

``torch.save`` makes a zip archive: ``NAME/data.pkl`` describes the tensor in pickle opcodes, ``NAME/data/0`` is its
bytes. vLLM unpickles the description under ``weights_only``. Here it is only *looked at*: the standard library's
disassembler lists its opcodes, and they must be, one for one, those of a single dense matrix of floats. Nothing in a
request is ever imported, called or built.
"""

import base64
import binascii
import io
import pickletools
import struct
import zipfile
import zlib
from typing import Any

import torch
from torch import Tensor

from dlr_plugins.serving.refusal import Refusal

STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
}
SILENT = ("PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "MEMOIZE")
"""Opcodes that carry nothing: a version, and notes for objects that come twice, of which there are none."""
ALIKE = {"BININT": "INT", "BININT1": "INT", "BININT2": "INT", "NEWTRUE": "BOOL", "NEWFALSE": "BOOL"}
LAYOUT = (
    *("GLOBAL", "MARK", "MARK", "BINUNICODE", "GLOBAL", "BINUNICODE", "BINUNICODE", "INT", "TUPLE", "BINPERSID"),
    *("INT", "INT", "INT", "TUPLE2", "INT", "INT", "TUPLE2"),
    *("BOOL", "GLOBAL", "EMPTY_TUPLE", "REDUCE", "TUPLE", "REDUCE", "STOP"),
)
"""A call of ``_rebuild_tensor_v2`` on (storage, offset, (rows, columns), strides, requires_grad, no hooks)."""
DESCRIPTION_BYTES = 4096
ENTRIES = 32
EXPECTED = "expected prompt_embeds as base64 of a dense float matrix that torch.save wrote"
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, OSError),
    *(ValueError, IndexError, KeyError, OverflowError, RuntimeError),
)


def encode(embeds_PH: Tensor) -> str:
    """A prompt's embeddings (P, H) as text for ``prompt_embeds``."""
    buffer = io.BytesIO()
    torch.save(embeds_PH.detach().cpu().clone(memory_format=torch.contiguous_format), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def decode(text: str, width: int, positions: int) -> Tensor:
    """Embeddings (P, H) from the text of ``prompt_embeds``.

    Args:
        text: what :func:`encode`, or a client of vLLM, has made.
        width: H.
        positions: largest P.

    Raises:
        Refusal: it is anything else, too long, or not finite.
    """
    try:
        payload = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(f"{EXPECTED}; this is not base64") from None
    try:
        embeds_PH = _read(payload, width, positions)
    except Refusal:
        raise
    except BROKEN:
        raise Refusal(f"{EXPECTED}; the archive in it is damaged") from None
    if not bool(torch.isfinite(embeds_PH).all()):
        raise Refusal("prompt_embeds: expected finite numbers, got NaN or infinity")
    return embeds_PH


def _read(payload: bytes, width: int, positions: int) -> Tensor:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        names = archive.namelist()
        found = [name for name in names if name.endswith("/data.pkl")]
        if len(found) != 1 or len(names) > ENTRIES:
            raise Refusal(f"{EXPECTED}; the archive in it holds something else")
        root = found[0].removesuffix("data.pkl")
        described = _entry(archive, found[0], DESCRIPTION_BYTES)
        storage, key, numel, offset, (rows, columns), strides = _described(described)
        if storage not in STORAGES:
            raise Refusal(f"prompt_embeds: expected float32, float16 or bfloat16, got {storage}")
        if columns != width:
            raise Refusal(f"prompt_embeds: expected vectors of the model's hidden size {width}, got {columns}")
        if not 1 <= rows <= positions:
            raise Refusal(f"prompt_embeds: expected 1 to {positions} positions, got {rows}")
        if strides[1] != 1 or (strides[0] != columns and rows > 1) or offset < 0 or offset + rows * columns > numel:
            raise Refusal(f"{EXPECTED}; its rows are not contiguous")
        if f"{root}byteorder" in names and _entry(archive, f"{root}byteorder", 16) != b"little":
            raise Refusal("prompt_embeds: expected little-endian numbers")
        dtype = STORAGES[storage]
        data = _entry(archive, f"{root}data/{key}", numel * dtype.itemsize)
    if len(data) != numel * dtype.itemsize:
        raise Refusal(f"{EXPECTED}; it is shorter than it says")
    flat = torch.frombuffer(bytearray(data), dtype=dtype)
    return flat[offset : offset + rows * columns].view(rows, columns).clone()


def _entry(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One entry's bytes: stored, not compressed, so that they are no more than were sent."""
    about = archive.getinfo(name)
    if about.compress_type != zipfile.ZIP_STORED or about.file_size > limit:
        raise Refusal(f"{EXPECTED}; the archive in it is compressed, or larger than it says")
    return archive.read(name)


def _described(pickled: bytes) -> tuple[str, str, int, int, tuple[int, int], tuple[int, int]]:
    """Storage type, storage key, its numbers, offset, shape and strides that a tensor's description names."""
    listed = [(op.name, arg) for op, arg, _ in pickletools.genops(pickled) if op.name not in SILENT]
    names = tuple(ALIKE.get(name, name) for name, _ in listed)
    values: list[Any] = [arg for _, arg in listed]
    fixed = (values[0], values[3], values[18]) if names == LAYOUT else None
    if fixed != ("torch._utils _rebuild_tensor_v2", "storage", "collections OrderedDict"):
        raise Refusal(f"{EXPECTED}; it holds another object, or a matrix of another kind or number of axes")
    if not values[5].isdecimal():
        raise Refusal(f"{EXPECTED}; its storage has no number")
    return values[4], values[5], values[7], values[10], (values[11], values[12]), (values[14], values[15])
