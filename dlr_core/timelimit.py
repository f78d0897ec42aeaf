"""A time limit on calls that may never return, such as plugins' rewards and verifiers, on any thread."""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any


class Overdue(Exception):
    """A call has not returned in time."""


class _Worker:
    """A thread that makes calls for another one."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.answered: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        arguments = (self.asked, self.answered)
        threading.Thread(target=_serve, args=arguments, name="dlr-time-limit", daemon=True).start()

    def __del__(self) -> None:
        self.asked.put(None)  # it ends, once it is no longer busy


def _serve(asked: "queue.SimpleQueue[Any]", answered: "queue.SimpleQueue[Any]") -> None:
    while (task := asked.get()) is not None:
        call, arguments = task
        try:
            answered.put((call(*arguments), None))
        except BaseException as error:  # belongs to whoever asked
            answered.put((None, error))
        del task, call, arguments


_local = threading.local()
"""One worker for every thread that asks."""


def within(seconds: float | None, call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call, or whatever it raises.

    Args:
        seconds: how long it may take; None: for ever.
        call: must not rely on running on the caller's thread.
        arguments: of the call.

    Raises:
        Overdue: it takes longer. Threads cannot be killed: the one that it hangs on is left behind, and does not keep
            the program from ending.
    """
    if seconds is None:
        return call(*arguments)
    worker: _Worker | None = getattr(_local, "worker", None)
    if worker is None or worker.process != os.getpid():  # threads do not survive a fork
        worker = _local.worker = _Worker()
    worker.asked.put((call, arguments))
    try:
        result, error = worker.answered.get(timeout=seconds)
    except (
        BaseException
    ) as reason:  # no answer in time, or Ctrl-C: an answer that comes late must not be the next one's
        _local.worker = None
        if isinstance(reason, queue.Empty):
            raise Overdue from None
        raise
    if error is not None:
        raise error
    return result
