"""Symbolic equality of answers by math-verify, in a process of its own that is limited in time and memory.

math-verify's own time limit uses ``signal.alarm``, which works on the main thread only.
"""

import atexit
import logging
import multiprocessing
import resource
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

LIMIT_SECONDS = 5.0
MEMORY_BYTES = 1 << 30
"""What checking answers may take beyond what the libraries do: "10^10^10" is short, its digits are not."""
# Not multiprocessing.Process: spawning runs the user's main script again.
_CHILD = (
    "import sys; from multiprocessing.connection import Connection; from dlr_plugins.tasks.mathcheck import _serve; "
    "_serve(Connection(int(sys.argv[1])))"
)
_lock = threading.Lock()
_worker: "tuple[Any, Connection] | None" = None


def _serve(pipe: Connection) -> None:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    if taken := _address_space():
        _limit(resource.RLIMIT_AS, taken + MEMORY_BYTES)
    while True:
        try:
            gold, answer = pipe.recv()
        except EOFError:
            return
        # whoever asked may be gone by the time, and nobody left to end this process
        _limit(resource.RLIMIT_CPU, int(time.process_time() + 10 * LIMIT_SECONDS))
        try:
            right = verify(
                parse(f"${gold}$", parsing_timeout=None),
                parse(answer, parsing_timeout=None),
                timeout_seconds=None,
            )
        except Exception:  # whatever the parser makes of model text (MemoryError too), it is not a right answer
            right = False
        pipe.send(bool(right))


def _limit(what: int, value: int) -> None:
    """Lower one of this process's limits, as far as the system knows it."""
    try:
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    except (OSError, ValueError):
        return


def _address_space() -> int:
    """Bytes of addresses that this process has now, libraries included; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def equivalent(gold: str, answer: str, limit: float = LIMIT_SECONDS) -> bool:
    """Whether math-verify finds ``answer`` equal to ``gold``.

    False after ``limit`` seconds (first call: more), or where it would take more than :data:`MEMORY_BYTES`.
    """
    global _worker
    with _lock:
        if _worker is not None and _worker[0].poll() is not None:
            _stop()  # it died between two questions: this one is not to blame
        fresh = _worker is None
        if _worker is None:
            ours, theirs = multiprocessing.Pipe()
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at a terminal is for the run, which may still need an answer
            )
            theirs.close()
            _worker = process, ours
        pipe = _worker[1]
        try:
            pipe.send((gold, answer))
            if pipe.poll(limit + (60.0 if fresh else 0.0)):
                return bool(pipe.recv())
        except (EOFError, BrokenPipeError, ConnectionError):
            pass
        _stop()
        return False


def _stop() -> None:
    global _worker
    if _worker is not None:
        _worker[0].kill()
        _worker[0].wait()
        _worker[1].close()
        _worker = None


atexit.register(_stop)
