"""Threads that have a part of the work each, and what they share."""

import platform
import subprocess
import sys

import pytest
import torch
from dlr_plugins.decoders.teacher_forced import LEAST_TOKENS, MANY_TOKENS, TOKENS, at_once

HELD = """
import ctypes
from dlr_plugins.decoders.abreast import abreast

class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks used".split()]
    _fields_ += [("free", ctypes.c_size_t), ("keepcost", ctypes.c_size_t)]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap  # of the heap that the process began with
before = libc.mallinfo2().used
held = abreast([lambda: [bytearray(50_000) for _ in range(100)]] * 8, 2)
print(libc.mallinfo2().used - before)
"""


def glibc_has_mallinfo2():
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 33)


@pytest.mark.skipif(not glibc_has_mallinfo2(), reason="another C library")
def test_what_a_thread_allocates_lies_where_the_others_can_use_it_again():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 8 * 100 * 50_000


def test_all_threads_passes_together_hold_no_more_than_one_would_until_they_are_too_narrow():
    cpu = torch.device("cpu")
    assert at_once(cpu) == TOKENS
    assert [workers * at_once(cpu, workers) for workers in (1, 2, 4)] == [TOKENS] * 3
    assert at_once(cpu, 16) == LEAST_TOKENS
    assert at_once(torch.device("cuda"), 16) == MANY_TOKENS
