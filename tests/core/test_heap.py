"""Memory that is free within the heap goes back to the system, and what is in use stays."""

import subprocess
import sys

import pytest

from dlr_core import trainer
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


def test_elsewhere_nothing_is_done(monkeypatch) -> None:
    monkeypatch.setattr("dlr_core.heap.GLIBC", False)
    monkeypatch.setattr("ctypes.CDLL", None)
    trainer.give_back()
