"""What a benchmark ran on, and how fast that is."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MEMORY = 256 * 2**20
"""Bytes of the block that memory speed is measured on: far larger than the caches."""


def machine() -> str:
    """Processor, its vector instructions, usable cores, threads, and PyTorch's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0] if lines else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{name}, {vectors}{gpu}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def memory_speed() -> float:
    """Bytes per second that a sum over a large block reads, the best of three."""
    block = torch.ones(MEMORY // 4)
    return MEMORY / fastest(block.sum)


def product_speed(size: int) -> float:
    """FLOP per second of a large square product in float32, the best of three."""
    square = torch.randn(size, size)
    return 2 * size**3 / fastest(lambda: square @ square)


def fastest(work: Callable[[], Any], turns: int = 3) -> float:
    """Seconds that the fastest of several turns takes."""
    best = float("inf")
    for _ in range(turns):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
