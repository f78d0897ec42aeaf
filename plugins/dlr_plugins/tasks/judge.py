"""A process of its own in which a model's text is judged: killed when it takes too long, and given little memory.

Symbolic algebra knows no end (``9**9**9**9``), and libraries' own time limits use ``signal.alarm``, which works on the
main thread only. Questions and scores cross the pipe as JSON.
"""

import atexit
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

LIMIT_SECONDS = 5.0
LIMIT_BYTES = 1 << 30
"""What a judgement may take beside the libraries themselves."""
START_SECONDS = 60.0
LONGEST = 48_000
"""Bytes of a question: what an idle pipe takes at once, so that asking never waits."""
Decide = Callable[[Any], float]


class Judge:
    """Asks a child process, which lives until a question is too much for it.

    ``module`` has a function ``prepare`` that imports what is needed and returns what decides: a JSON value to a score.
    """

    def __init__(self, module: str) -> None:
        # Not multiprocessing.Process: spawning runs the user's main script again.
        self._code = (
            f"import sys; from {module} import prepare; from {__name__} import serve; serve(int(sys.argv[1]), prepare)"
        )
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def ask(self, question: Any, limit: float = LIMIT_SECONDS) -> float | None:
        """The score; None where there is none after ``limit`` seconds, within the memory, or at all."""
        message = json.dumps(question, default=str).encode()
        if len(message) > LONGEST:
            return None
        with self._lock:
            if self.process is not None and self.process.poll() is not None:
                self.stop()  # it died between two questions: this one is not to blame
            try:
                pipe = self._pipe or self._start()
                pipe.send_bytes(message)
                if pipe.poll(limit):
                    score, full = json.loads(pipe.recv_bytes(64))
                    if full:
                        self.stop()
                    return float(score)
            except (EOFError, OSError, ValueError):
                pass
            self.stop()
            return None

    def _start(self) -> Connection:
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self._code, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at a terminal is for the run, which may still need an answer
            )
        if not ours.poll(START_SECONDS):
            raise EOFError
        ours.recv_bytes(64)
        return ours

    def stop(self) -> None:
        """End the process; the next question starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._pipe is not None:
            self._pipe.close()
        self.process = self._pipe = None


def serve(descriptor: int, prepare: Callable[[], Decide]) -> None:
    """The child's side: answer questions until the pipe is closed, or one has filled the memory."""
    pipe = Connection(descriptor)
    decide = prepare()
    limit_memory(LIMIT_BYTES)
    pipe.send_bytes(b"0")
    while True:
        try:
            question = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        limit_seconds(2 * LIMIT_SECONDS)  # the parent may be gone before it could kill
        full = False
        try:
            score = float(decide(question))
        except Exception as error:  # whatever a library makes of model text, it is not a right answer
            score, full = 0.0, isinstance(error, MemoryError)
        pipe.send_bytes(json.dumps([score, full]).encode())
        if full:
            return


def limit_memory(more: int) -> None:
    """Allow this process so many bytes beside what it holds, and no file to be written; nothing where unsupported."""
    try:
        import resource

        import psutil

        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def limit_seconds(more: float) -> None:
    """Allow this process so many seconds of the processor beside what it has used."""
    try:
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + more) + 1, hard))
    except (ImportError, OSError, ValueError):
        return
