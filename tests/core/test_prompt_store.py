"""Prompts in a file: the same bits, room that is used again, nothing left behind, and a full disk that ends no run."""

import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dlr_core.errors import RoomWarning
from dlr_core.prompt_store import PAGE, Disk, spacious
from dlr_core.question_cache import QuestionCache
from dlr_core.records import PromptCache
from dlr_core.settings import ReplaySettings


def prompt(positions: int, dtype: torch.dtype = torch.float32, *, ids: bool = False) -> PromptCache:
    """A prompt of random numbers; layers differ in shape, and few tensors end at a multiple of 8 bytes."""
    layers = (torch.randn(1, heads, positions, 63).to(dtype) for heads in (1, 3, 2, 5))
    keys, values = (next(layers).transpose(1, 2).contiguous().transpose(1, 2), next(layers)), (*layers,)
    states, pending = torch.randn(1, positions, 95).to(dtype), torch.randn(1, 0, 95).to(dtype)
    mask = torch.ones(1, positions, dtype=torch.long)
    return PromptCache(keys, values, mask, states, pending, 2, ids_NS=mask * 7 if ids else None)


def same(one: PromptCache, other: PromptCache) -> bool:
    def tensors(cache: PromptCache) -> list[Any]:
        return [*cache.keys, *cache.values, cache.mask_NS, cache.states_NSH, cache.pending_NPH, cache.ids_NS]

    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return one.num_latents == other.num_latents and all(
        a is b if a is None else torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ids", [False, True])
def test_a_prompt_is_read_as_it_was_kept(tmp_path: Path, dtype: torch.dtype, ids: bool) -> None:
    disk, given = Disk(tmp_path), [prompt(positions, dtype, ids=ids) for positions in (3, 51, 7, 200)]
    kept = [disk.keep(one) for one in given]
    assert sum(one.size for one in kept) > 2 * PAGE  # several pages, the last in part
    assert all(same(one.read(), other) for one, other in zip(kept, given, strict=True))


def test_pages_of_what_is_forgotten_are_used_again_and_others_stay_as_they_were(tmp_path: Path) -> None:
    disk, generator = Disk(tmp_path), torch.Generator().manual_seed(0)
    held: list[tuple[Any, PromptCache]] = []
    most = 0
    for _ in range(60):
        if len(held) == 5:
            place = int(torch.randint(5, (), generator=generator))
            held.pop(place)[0].forget()
        given = prompt(int(torch.randint(1, 300, (), generator=generator)))
        held.append((disk.keep(given), given))
        most = max(most, sum(len(kept.pages) for kept, _ in held))
        assert all(same(kept.read(), one) for kept, one in held)
    assert disk.pages == most
    assert disk._file.seek(0, os.SEEK_END) <= most * PAGE


def test_the_file_is_made_when_first_needed_and_has_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    disk = Disk(folder)
    folder.mkdir()
    disk.keep(prompt(3))
    assert list(folder.iterdir()) == []


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, torch\nfrom dlr_core.prompt_store import Disk\n"
        "from dlr_core.records import PromptCache\nkey = torch.zeros(1, 1, 9, 8)\n"
        "one = PromptCache((key,), (key,), torch.ones(1, 9).long(), torch.zeros(1, 9, 4), torch.zeros(1, 1, 4), 0)\n"
        f"Disk(pathlib.Path({str(tmp_path)!r})).keep(one)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


class Full:
    """A file on a disk that has room for some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: memoryview) -> int:
        fits = min(self.room, len(data))
        self.room -= fits
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
        written: int = self.file.write(data[:fits])
        return written


def cache_on(disk: Disk, given: dict[str, PromptCache]) -> QuestionCache:
    def prefill(questions: Sequence[str]) -> PromptCache:
        (question,) = questions
        return given[question]

    return QuestionCache(prefill, 10**9, disk.keep)


def test_a_full_disk_is_said_once_and_what_had_no_room_is_prefilled_again(tmp_path: Path) -> None:
    disk, given = Disk(tmp_path), {str(number): prompt(100) for number in range(4)}
    disk.__dict__["_file"] = Full(disk._file, room=disk.keep(given["0"]).size * 5 // 2)
    disk.give_back(range(disk.pages))
    cache = cache_on(disk, given)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            assert all(same(cache.prompts([text]), one) for text, one in given.items())
    assert [warning.category for warning in told] == [RoomWarning]
    assert "No space left on device" in str(told[0].message)
    assert list(cache.held) == ["0", "1"]
    assert cache.size == sum(held.size for held in cache.held.values())
    used = [page for held in cache.held.values() for page in held.kept.pages]  # type: ignore[attr-defined]
    assert sorted(used + disk._free) == list(range(disk.pages))  # what was half written is free


def test_what_is_not_written_to_its_last_byte_is_not_kept(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    whole = disk.keep(prompt(9))
    disk.__dict__["_file"] = Full(disk._file, room=whole.size - 1)
    with pytest.raises(OSError, match="No space left on device"):
        disk.keep(prompt(9))


def test_a_prompt_that_the_file_has_lost_is_not_made_up(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    kept = disk.keep(prompt(9))
    disk._file.truncate(kept.size - 1)
    with pytest.raises(OSError, match="Input/output error"):
        kept.read()


def test_a_cache_gives_the_pages_of_what_it_drops_back(tmp_path: Path) -> None:
    disk, given = Disk(tmp_path), {str(number): prompt(90 + number) for number in range(9)}
    cache = cache_on(disk, given)
    cache.prompts(["0"])
    cache.limit = 3 * cache.size
    for text in given:
        cache.prompts([text])
    used = [page for held in cache.held.values() for page in held.kept.pages]  # type: ignore[attr-defined]
    assert 2 <= len(cache.held) <= 3
    assert sorted(used + disk._free) == list(range(disk.pages))


def test_a_folder_that_is_not_there_ends_no_run(tmp_path: Path) -> None:
    given = {"0": prompt(5)}
    cache = cache_on(Disk(tmp_path / "nowhere"), given)
    with pytest.warns(RoomWarning, match="no room for prefilled prompts"):
        assert same(cache.prompts(["0"]), given["0"])
    assert (len(cache.held), cache.size) == (0, 0)


def test_a_given_folder_comes_first_and_memory_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert spacious() == tmp_path
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert spacious() == tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert spacious() == Path("/var/tmp")


@pytest.mark.parametrize(
    ("setting", "device", "disk"),
    [("auto", "cpu", True), ("auto", "cuda", False), ("disk", "cuda", True), ("memory", "cpu", False)],
)
def test_a_cpus_prompts_are_on_disk_unless_told_otherwise(setting: Any, device: str, disk: bool) -> None:
    assert ReplaySettings(cache_on=setting).cached_on_disk(device) == disk
