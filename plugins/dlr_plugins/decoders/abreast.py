"""Parts of a batch scored at the same time, each by a thread of its own, forward and back.

Halves share nothing. For decoding it does not pay: its products are too narrow to be halved.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from dlr_core.heap import one_heap

Made = TypeVar("Made")
LEAST_ROWS = 16
"""Rows below which a part's products are too narrow to be worth a thread."""
LEAST_FLOPS = 1e9
"""Work below which handing it over is not worth it."""
_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def workers_for(device: torch.device, rows: int, flops: float) -> int:
    """How many threads should share work on ``rows`` rows, ``flops`` in one pass; one for all on an accelerator."""
    if device.type != "cpu" or flops < LEAST_FLOPS:
        return 1
    return max(1, min(torch.get_num_threads(), rows // LEAST_ROWS))


def abreast(jobs: Sequence[Callable[[], Made]], workers: int) -> list[Made]:
    """Run all jobs, ``workers`` at a time, each with its share of PyTorch's threads; results in order.

    The first error is raised.
    """
    if workers <= 1:
        return [job() for job in jobs]
    key = (workers, max(1, torch.get_num_threads() // workers))
    with _lock:
        if key not in _pools:
            one_heap()
            _pools[key] = ThreadPoolExecutor(workers, "dlr", torch.set_num_threads, (key[1],))
    return [made.result() for made in [_pools[key].submit(job) for job in jobs]]
