"""One process at a time in a run folder. The system lets go of the lock when that process ends, however it ends."""

import contextlib
import fcntl
import os
from pathlib import Path

from dlr_core.durable import remove_file
from dlr_core.errors import RunFolderError

LOCK = "run.lock"


class FolderLock:
    """Holds a folder until :meth:`release`.

    Raises:
        RunFolderError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._number: int | None = None
        while self._number is None:
            self._number = self._take()

    def _take(self) -> int | None:
        """The lock's descriptor; None if its file was removed by whoever held it until now."""
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(number, self.path)
            if not _is_at(number, self.path):
                os.close(number)
                return None
        except BaseException:
            os.close(number)
            raise
        with contextlib.suppress(OSError):  # who holds it is a courtesy to the next one
            os.ftruncate(number, 0)
            os.pwrite(number, f"process {os.getpid()}\n".encode(), 0)
        return number

    def release(self) -> None:
        """Let go; twice is once."""
        if self._number is not None:
            remove_file(self.path)
            os.close(self._number)
            self._number = None


def refuse_if_held(folder: Path) -> None:
    """Look, without taking it, whether another process holds a folder.

    Raises:
        RunFolderError: one does.
    """
    path = folder / LOCK
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _lock(number, path)
    finally:
        os.close(number)


def _lock(number: int, path: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(number, 100, 0).decode(errors="replace").strip() or "another process"
        raise RunFolderError(
            f"{path.parent} is in use by {holder}: wait for it to end, or choose another --out"
        ) from None
    except OSError:
        return  # a file system without locks: nothing can be promised there


def _is_at(number: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False
