"""A time limit on calls that may never return, such as plugins' rewards and verifiers, on any thread."""

import threading
from collections.abc import Callable
from typing import Any

from dlr_core.aside import Aside


class Overdue(Exception):
    """A call has not returned in time."""


_local = threading.local()
"""One helper for every thread that asks."""


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
    helper: Aside | None = getattr(_local, "helper", None)
    if helper is None:
        helper = _local.helper = Aside()
    pending = helper.start(call, *arguments)
    _local.helper = None  # no answer in time, or Ctrl-C: what comes late must not delay the next call
    if not pending.wait(seconds):
        raise Overdue
    _local.helper = helper
    return pending.result()
