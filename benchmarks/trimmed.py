"""What this process has freed, given back to the system, so that a peak above what is held means something."""

import gc

from dlr_core.heap import give_back


def trim() -> None:
    """Collect garbage and have the allocator keep none of it."""
    gc.collect()
    give_back()
