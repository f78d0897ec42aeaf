"""What this process has freed, given back to the system, so that a peak above what is held means something."""

import ctypes
import gc
import sys


def trim() -> None:
    """Collect garbage and, with glibc, have the allocator keep none of it."""
    gc.collect()
    if sys.platform == "linux":
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if give_back is not None:
            give_back(0)
