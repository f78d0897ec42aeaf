"""Ctrl-C and SIGTERM: stop after the step, with a checkpoint, or at once."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from dlr_core.ranks import Ranks


class Stop:
    """The first Ctrl-C, SIGTERM or lost terminal asks for a stop after the step; the second acts at once.

    So does the first, of several ranks, where one of the others has ended: whoever started them wants the rest to end.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.asked = False
        self.ranks = ranks or Ranks()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asked for it to be ignored
            numbers.append(signal.SIGHUP)
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            numbers = []
        self._old = {number: signal.signal(number, self._ask) for number in numbers}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        if self.ranks.ended():
            raise self.ranks.lost("it has ended")
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if not self.ranks.first:
            return
        with contextlib.suppress(RuntimeError, OSError):  # the signal came in the middle of a print; nobody reads it
            print("stopping after this step …", file=sys.stderr)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Print nowhere from now on, where the terminal is gone: an error while printing must not cost the checkpoint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)
