"""Threads that have a part of the work each, and what they share."""

import subprocess
import sys

import pytest
import torch
from dlr_plugins.decoders import teacher_forced
from dlr_plugins.decoders.teacher_forced import LEAST_TOKENS, MANY_TOKENS, TOKENS, at_once

from dlr_core.heap import GLIBC

HELD = """
import ctypes
from pathlib import Path
from dlr_plugins.decoders.abreast import abreast

held = sum(abreast([lambda: [bytearray(50_000) for _ in range(100)]] * 8, 2), [])
heap = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]"))
first, last = (int(end, 16) for end in heap.split()[0].split("-"))
places = [ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in held]
print(sum(first <= place < last for place in places) / len(places))
"""


@pytest.mark.skipif(not GLIBC or sys.platform != "linux", reason="another C library")
def test_what_a_thread_allocates_lies_where_the_others_can_use_it_again():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.9


def test_all_threads_passes_together_hold_no_more_than_one_would_until_they_are_too_narrow():
    cpu = torch.device("cpu")
    assert at_once(cpu) == TOKENS
    assert [workers * at_once(cpu, workers) for workers in (1, 2, 4)] == [TOKENS] * 3
    assert at_once(cpu, 16) == LEAST_TOKENS
    assert at_once(torch.device("cuda"), 16) == MANY_TOKENS


def test_a_thread_of_several_scores_its_share_of_the_positions(tiny_decoder, monkeypatch):
    asked = []
    monkeypatch.setattr(teacher_forced, "workers_for", lambda *_: 2)
    monkeypatch.setattr(teacher_forced, "at_once", lambda _, workers=1: asked.append(workers) or MANY_TOKENS)
    ids_NL, mask_NL = tiny_decoder.encode_targets(["12", "because"])
    tiny_decoder.log_prob(tiny_decoder.prefill(["Hi", "2 + 2 ="], [], [], 0), ids_NL, mask_NL)
    assert asked == [2]
