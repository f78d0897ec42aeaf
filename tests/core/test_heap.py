"""Memory that is free within the heap goes back to the system, and what is in use stays."""

import subprocess
import sys

import pytest

from dlr_core import heap
from dlr_core.heap import GLIBC

CHECK = """
import psutil
from dlr_core.heap import give_back

held = lambda: psutil.Process().memory_info().rss
large, small = [], []
for number in range(2000):
    large.append(bytearray(100_000))
    small.append(bytes([number % 256]) * 2000)
del large
before = held()
give_back()
print(before - held(), all(kept == bytes([number % 256]) * 2000 for number, kept in enumerate(small)))
"""


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_pieces_between_what_is_in_use_are_given_back() -> None:
    out = subprocess.run([sys.executable, "-c", CHECK], check=True, capture_output=True, text=True).stdout.split()
    assert int(out[0]) > 150_000_000
    assert out[1] == "True"


AGAIN = """
import resource, sys
from dlr_core.heap import keep_free

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
turn = lambda: [b"x" * 10_000_000 for _ in range(5)] and None
if sys.argv[1] == "kept":
    keep_free()
for _ in range(3):
    turn()
before = faults()
turn()
print(faults() - before)
"""


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_what_is_freed_and_wanted_again_is_not_asked_of_the_system_again() -> None:
    pages = 5 * 10_000_000 // 4096
    command = [sys.executable, "-c", AGAIN]
    kept, left = (
        int(subprocess.run([*command, how], check=True, capture_output=True, text=True).stdout)
        for how in ("kept", "left")
    )
    assert kept < pages / 10
    assert left > pages / 2  # glibc's own way, for which there is something to be done


def test_elsewhere_nothing_is_done(monkeypatch) -> None:
    monkeypatch.setattr("dlr_core.heap.GLIBC", False)
    monkeypatch.setattr("ctypes.CDLL", None)
    heap.give_back()
    heap.keep_free()
    heap.one_heap()
