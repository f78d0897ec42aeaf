"""What a benchmark ran on."""

import os
import platform
from pathlib import Path

import torch


def machine() -> str:
    """Processor, usable cores, threads, and PyTorch's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0] if lines else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}{gpu}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
