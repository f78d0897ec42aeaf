"""Symbolic equality of answers by math-verify, in a process of its own that is killed when it takes too long.

math-verify's own time limit uses ``signal.alarm``, which works on the main thread only.
"""

import atexit
import multiprocessing
import threading
from multiprocessing.connection import Connection
from typing import Any

LIMIT_SECONDS = 5.0
_lock = threading.Lock()
_worker: "tuple[Any, Connection] | None" = None


def _serve(pipe: Connection) -> None:
    from math_verify import parse, verify

    while True:
        gold, answer = pipe.recv()
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
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
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
        _worker[0].join()
        _worker[1].close()
        _worker = None


atexit.register(_stop)
