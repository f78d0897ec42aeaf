"""Symbolic equality of answers by math-verify, in a process of its own that is killed when it takes too long.

math-verify's own time limit uses ``signal.alarm``, which works on the main thread only.
"""

import atexit
import logging
import multiprocessing
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

LIMIT_SECONDS = 5.0
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
    while True:
        try:
            gold, answer = pipe.recv()
        except EOFError:
            return
        try:
            right = verify(
                parse(f"${gold}$", parsing_timeout=None),
                parse(answer, parsing_timeout=None),
                timeout_seconds=None,
            )
        except Exception:  # whatever the parser makes of model text, it is not a right answer
            right = False
        pipe.send(bool(right))


def equivalent(gold: str, answer: str, limit: float = LIMIT_SECONDS) -> bool:
    """Whether math-verify finds ``answer`` equal to ``gold``; False after ``limit`` seconds (first call: more)."""
    global _worker
    with _lock:
        fresh = _worker is None
        if _worker is None:
            ours, theirs = multiprocessing.Pipe()
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
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
