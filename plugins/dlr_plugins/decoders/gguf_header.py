"""Is a GGUF file whole? Looked at before it is given to a reader that trusts what the header says.

Layout (ggml's docs/gguf.md): magic, version, numbers of tensors and of key-value pairs, the pairs, a description of
every tensor, padding, data. A reader that takes a count from a damaged header may go on past the end for ever.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from dlr_core.errors import ModelError

VERSIONS = (2, 3)
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of every scalar type."""
STRING, ARRAY, DIMENSIONS, DEPTH = 8, 9, 4, 4


def check_gguf(path: Path) -> None:
    """Read the header through, and hold every tensor against the file's size.

    Raises:
        ModelError: it is no GGUF file, a damaged one, or only the beginning of one.
    """
    try:
        with path.open("rb") as file:
            _Header(file, path.stat().st_size).read()
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise ModelError(f"{path} is no whole GGUF file: {error}") from None


class _Header:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.alignment = file, size, 32

    def read(self) -> None:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self._int("<I")
        if version not in VERSIONS:
            raise ValueError(f"expected version {' or '.join(map(str, VERSIONS))}, got {version}")
        tensors, pairs = self._int("<Q"), self._int("<Q")
        for _ in range(self._count(pairs, 12)):
            self._pair()
        ends = [self._tensor() for _ in range(self._count(tensors, 24))]
        start = -(-self.file.tell() // self.alignment) * self.alignment
        missing = start + max(ends, default=0) - self.size
        if missing > 0:
            raise ValueError(f"{missing} bytes are missing at its end")

    def _bytes(self, count: int) -> bytes:
        found = self.file.read(count) if count <= self.size else b""
        if len(found) < count:
            raise ValueError("it ends within its header")
        return found

    def _int(self, layout: str) -> int:
        return int(struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0])

    def _count(self, count: int, least: int) -> int:
        """A number of things of at least so many bytes each, if the file has room for them."""
        if count * least > self.size - self.file.tell():
            raise ValueError(f"its header counts {count} entries, more than it has room for")
        return count

    def _string(self) -> bytes:
        return self._bytes(self._count(self._int("<Q"), 1))

    def _pair(self) -> None:
        key, kind = self._string(), self._int("<I")
        key.decode()
        if key == b"general.alignment" and kind == 4:
            self.alignment = self._int("<I")
            if not 0 < self.alignment <= 1 << 20:
                raise ValueError(f"an alignment of {self.alignment}")
        else:
            self._value(kind, 0)

    def _value(self, kind: int, depth: int) -> None:
        if kind == STRING:
            self._string()
        elif kind == ARRAY and depth < DEPTH:
            inner, count = self._int("<I"), self._int("<Q")
            if inner in SCALARS:
                self.file.seek(self._count(count, SCALARS[inner]) * SCALARS[inner], 1)
            else:
                for _ in range(self._count(count, 8)):
                    self._value(inner, depth + 1)
        elif kind in SCALARS:
            self._bytes(SCALARS[kind])
        else:
            raise ValueError(f"a value of type {kind}")

    def _tensor(self) -> int:
        """Where a tensor's data end, counted from where all data begin."""
        self._string().decode()
        dimensions = self._int("<I")
        if dimensions > DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        entries = 1
        for _ in range(dimensions):
            entries *= self._int("<Q")
        block, width = GGML_QUANT_SIZES[GGMLQuantizationType(self._int("<I"))]
        return self._int("<Q") + entries // int(block) * int(width)
