"""The C library's heap, which keeps what was freed in pieces that what comes next may not fit into.

Only glibc's is told anything; elsewhere nothing is done.
"""

import ctypes
import platform

GLIBC = platform.libc_ver()[0] == "glibc"
ARENA_MAX = -8
"""M_ARENA_MAX of <malloc.h>: how many heaps there are for threads to choose from."""


def give_back() -> None:
    """Let the system have the memory that is free within the heap: pages that are wanted again are asked for anew."""
    if GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def one_heap() -> None:
    """Let threads that begin later allocate from the heap that there is.

    It would give each a heap of its own, and keep what one pass has left in it, which no other thread can use then.
    """
    if GLIBC:
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
