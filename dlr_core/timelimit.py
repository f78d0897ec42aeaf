"""A time limit on calls that may never return, such as plugins' rewards and verifiers, on any thread."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from dlr_core.aside import Aside

T = TypeVar("T")


class Overdue(Exception):
    """A call has not returned in time."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """Which of the calls, from 0."""


_local = threading.local()
"""One helper for every thread that asks."""


def within(seconds: float | None, call: Callable[..., T], *arguments: Any) -> T:
    """The result of a call, or whatever it raises; see :func:`each_within`."""
    return each_within(seconds, call, [arguments])[0]


def each_within(seconds: float | None, call: Callable[..., T], rows: Sequence[Sequence[Any]]) -> list[T]:
    """The results of calls made one after another, or whatever the first to fail raises.

    Args:
        seconds: how long each of them may take; None: for ever.
        call: must not rely on running on the caller's thread.
        rows: the arguments of every call.

    Raises:
        Overdue: one takes longer. Threads cannot be killed: the one that it hangs on is left behind, and does not keep
            the program from ending. No further call is made.
    """
    if seconds is None:
        return [call(*row) for row in rows]
    helper: Aside | None = getattr(_local, "helper", None)
    if helper is None:
        helper = _local.helper = Aside()
    calls = _Calls(call, rows)  # all of them handed over at once: waking a thread costs more than most calls
    pending = helper.start(calls.make)
    _local.helper = None  # no answer in time, or Ctrl-C: what comes late must not delay the next calls
    try:
        while not pending.wait(max(0.0, seconds - calls.age)):
            if calls.age >= seconds:
                raise Overdue(len(calls.made))
    except BaseException:
        calls.given_up = True
        raise
    _local.helper = helper
    return pending.result()


class _Calls(Generic[T]):
    """Calls that one thread makes while another watches."""

    def __init__(self, call: Callable[..., T], rows: Sequence[Sequence[Any]]) -> None:
        self._call, self._rows, self._began = call, rows, time.monotonic()
        self.made: list[T] = []
        """What has been returned so far."""
        self.given_up = False

    @property
    def age(self) -> float:
        """Seconds since the present call began."""
        return time.monotonic() - self._began

    def make(self) -> list[T]:
        """Make them, unless they are given up."""
        for row in self._rows:
            if self.given_up:
                break
            self._began = time.monotonic()
            self.made.append(self._call(*row))
        return self.made
