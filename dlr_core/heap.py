"""The C library's heap, which keeps what one phase of a step has given up in pieces that another cannot use."""

import ctypes
import platform

GLIBC = platform.libc_ver()[0] == "glibc"


def give_back() -> None:
    """Let the system have the memory that is free within the heap, where the C library is glibc.

    Some milliseconds for every hundred megabytes that are asked for again.
    """
    if GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
