"""Calls made on another thread while the caller goes on: one batch is judged while the next is read or decoded."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_Answer = tuple[Any, BaseException | None]


class Pending(Generic[T]):
    """What a call will return."""

    def __init__(self) -> None:
        self._answered: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._answer: _Answer | None = None

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the result is there, after so many seconds at most (None: however long it takes)."""
        if self._answer is None:
            with contextlib.suppress(queue.Empty):
                self._answer = self._answered.get(timeout=seconds)
        return self._answer is not None

    def result(self) -> T:
        """What the call returned, once it has; whatever it raised is raised."""
        answer = self._answer = self._answer or self._answered.get()
        value, error = answer
        if error is not None:
            raise error
        made: T = value
        return made

    def answer(self, value: Any, error: BaseException | None = None) -> None:
        """Give the result, once."""
        self._answered.put((value, error))


class Aside:
    """A thread that makes calls for another one, in the order in which they are asked for.

    It is there once something is asked, ends with its owner, and does not keep the program from ending.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Any] | None = None
        self._process = 0

    def start(self, call: Callable[..., T], *arguments: Any) -> Pending[T]:
        """Have a call made; it must not rely on running on the caller's thread."""
        if self._asked is None or self._process != os.getpid():  # threads do not survive a fork
            self._asked, self._process = queue.SimpleQueue(), os.getpid()
            threading.Thread(target=_serve, args=(self._asked,), name="dlr-aside", daemon=True).start()
        pending: Pending[T] = Pending()
        self._asked.put((pending, call, arguments))
        return pending

    def __del__(self) -> None:
        if self._asked is not None:
            self._asked.put(None)  # it ends, once it is no longer busy


def _serve(asked: "queue.SimpleQueue[Any]") -> None:
    while (task := asked.get()) is not None:
        pending, call, arguments = task
        try:
            pending.answer(call(*arguments))
        except BaseException as error:  # belongs to whoever asked
            pending.answer(None, error)
        del task, pending, call, arguments
