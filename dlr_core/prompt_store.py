"""Where prefilled prompts are kept: in memory, or in a temporary file that the system caches as far as it has room.

The file is in pages of one size. A prompt takes as many as it needs, wherever they lie; one that is forgotten leaves
its pages to the next.
"""

import errno
import math
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dlr_core.records import Beginning, PromptCache

PAGE = 2**16
"""Bytes of a page."""


class Kept(Protocol):
    """A prompt that is kept."""

    def read(self) -> PromptCache:
        """The prompt, to the last bit."""

    def forget(self) -> None:
        """Leave its room to others; it is not read again."""


Keep = Callable[[PromptCache], Kept]
"""Keeps a prompt that has no trunk; OSError where there is no room."""


@dataclass(frozen=True)
class InMemory:
    """A prompt as it is."""

    prompt: PromptCache

    def read(self) -> PromptCache:
        """The prompt itself."""
        return self.prompt

    def forget(self) -> None:
        """Nothing: its memory is given back when nobody holds it."""


class Disk:
    """Keeps prompts in a file without a name, made when first needed; it is gone when the process is, however it ends.

    Args:
        folder: of the file; :func:`spacious` if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or spacious()
        self.pages = 0
        """That the file has."""
        self._free: list[int] = []

    @cached_property
    def _file(self) -> FileIO:
        file: FileIO = tempfile.TemporaryFile(buffering=0, dir=self.folder)  # noqa: SIM115  (open for as long as this lives)
        weakref.finalize(self, file.close)
        return file

    def keep(self, prompt: PromptCache) -> "OnDisk":
        """Keep one; OSError where the file can be neither made nor written."""
        tensors = _tensors(prompt)
        data = torch.cat([tensor.cpu().reshape(-1).view(torch.uint8) for tensor in tensors.values()])
        pages = self._pages(-(-len(data) // PAGE))
        try:
            for place, page in enumerate(pages):
                self._write(page, data[place * PAGE : (place + 1) * PAGE])
        except OSError:
            self.give_back(pages)
            raise
        parts = {name: Part(tuple(each.shape), each.dtype, each.device) for name, each in tensors.items()}
        return OnDisk(self, pages, len(data), parts, prompt.num_latents, prompt.beginning)

    def read(self, pages: Sequence[int], size: int) -> Tensor:
        """What was written to pages, the last in part: uint8 (size,); OSError where it is not there any more."""
        data = torch.empty(size, dtype=torch.uint8)
        for place, page in enumerate(pages):
            part = data[place * PAGE : (place + 1) * PAGE]
            self._file.seek(page * PAGE)
            if self._file.readinto(part.numpy().data) < len(part):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return data

    def give_back(self, pages: Sequence[int]) -> None:
        """Pages that are not read again."""
        self._free += pages

    def _pages(self, count: int) -> tuple[int, ...]:
        missing = max(0, count - len(self._free))
        self._free += range(self.pages, self.pages + missing)
        self.pages += missing
        taken, self._free = self._free[:count], self._free[count:]
        return tuple(taken)

    def _write(self, page: int, data: Tensor) -> None:
        self._file.seek(page * PAGE)
        if self._file.write(data.numpy().data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Part(NamedTuple):
    """A tensor among bytes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    """Where it was."""


@dataclass(frozen=True)
class OnDisk:
    """A prompt in the pages of a file."""

    disk: Disk
    pages: tuple[int, ...]
    size: int
    """Bytes, the last page's rest left out."""
    parts: dict[str, Part]
    """By name, in their order."""
    num_latents: int
    beginning: Beginning | None
    """Stays in memory: others have it too."""

    def read(self) -> PromptCache:
        """A copy, every tensor on the device that it was on."""
        data, start, found = self.disk.read(self.pages, self.size), 0, {}
        for name, part in self.parts.items():
            end = start + math.prod(part.shape) * part.dtype.itemsize
            found[name] = data[start:end].view(part.dtype).view(part.shape).to(part.device)
            start = end
        layers = range(sum(name.startswith("key") for name in found))
        return PromptCache(
            tuple(found[f"key.{layer}"] for layer in layers),
            tuple(found[f"value.{layer}"] for layer in layers),
            found["mask"],
            found["states"],
            found["pending"],
            self.num_latents,
            ids_NS=found.get("ids"),
            beginning=self.beginning,
        )

    def forget(self) -> None:
        """Leave its pages to others."""
        self.disk.give_back(self.pages)


def spacious() -> Path:
    """TMPDIR if that is set; else /var/tmp, which is on a disk where /tmp is memory; else the system's own."""
    if not os.environ.get("TMPDIR") and os.access("/var/tmp", os.W_OK):
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())


def _tensors(prompt: PromptCache) -> dict[str, Tensor]:
    """By name, those of the widest numbers first: each then begins at a multiple of its numbers' width."""
    whole = {"mask": prompt.mask_NS} | ({} if prompt.ids_NS is None else {"ids": prompt.ids_NS})
    keys = {f"key.{layer}": key for layer, key in enumerate(prompt.keys)}
    values = {f"value.{layer}": value for layer, value in enumerate(prompt.values)}
    return whole | keys | values | {"states": prompt.states_NSH, "pending": prompt.pending_NPH}
