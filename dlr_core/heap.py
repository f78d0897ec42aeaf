"""The C library's heap, which keeps what was freed in pieces that what comes next may not fit into.

Only glibc's is told anything; elsewhere nothing is done.
"""

import ctypes
import platform

GLIBC = platform.libc_ver()[0] == "glibc"
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Of <malloc.h>: free bytes at the heap's end that are given back by themselves; bytes from which on a block is the
system's and not the heap's; how many heaps there are for threads to choose from."""
LARGEST = 32 * 2**20
"""Bytes up to which glibc raises the second by itself, and twice that the first, as blocks of such sizes are freed."""


def give_back() -> None:
    """Let the system have the memory that is free within the heap: pages that are wanted again are asked for anew."""
    if GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def keep_free() -> None:
    """Keep what blocks of up to :data:`LARGEST` bytes leave when they are freed, as glibc would come to do by itself.

    Until then it gives them back, and whoever wants as much again waits while the system clears every page.
    """
    _set(MMAP_THRESHOLD, LARGEST)
    _set(TRIM_THRESHOLD, 2 * LARGEST)


def one_heap() -> None:
    """Let threads that begin later allocate from the heap that there is.

    It would give each a heap of its own, and keep what one pass has left in it, which no other thread can use then.
    """
    _set(ARENA_MAX, 1)


def _set(option: int, value: int) -> None:
    if GLIBC:
        ctypes.CDLL(None).mallopt(option, value)
