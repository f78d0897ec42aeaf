"""`dlr` in processes of its own that can be killed, forked from one that has imported everything already."""

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["dlr_cli.session", "dlr_plugins.register", "dlr_envs.register", "transformers.models.llama.modeling_llama"]
)


def _run(arguments: list[str], log: str, fault: str | None, options: dict[str, Any]) -> None:
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    import misbehaving
    from dlr_cli.app import main

    misbehaving.offer()
    if fault:
        getattr(misbehaving, fault)(**options)
    sys.argv = ["dlr", *arguments]
    main()


class Program:
    """One `dlr` command, with a fault of `misbehaving` built in if one is named; what it prints goes to `log`."""

    def __init__(self, *arguments: Any, log: Path, fault: str | None = None, **options: Any) -> None:
        self.log = log
        given = ([str(argument) for argument in arguments], str(log), fault, options)
        self.process = CONTEXT.Process(target=_run, args=given)
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def wait(self, seconds: float = 300.0) -> int:
        """Its exit code; minus the signal that killed it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {seconds:g} s: {self.said()}")
        return self.process.exitcode

    def ended(self) -> bool:
        return not self.process.is_alive()

    def wait_for_lines(self, file: Path, count: int, seconds: float = 300.0) -> bool:
        """Wait until a file has so many lines; False if the program ended first."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if file.is_file() and file.read_bytes().count(b"\n") >= count:
                return True
            if self.ended():
                return False
            time.sleep(0.005)
        raise AssertionError(f"{file} never had {count} lines: {self.said()}")

    def said(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace") if self.log.is_file() else ""


def run(*arguments: Any, log: Path, fault: str | None = None, **options: Any) -> tuple[int, str]:
    """Exit code and output of a command that is left to its end."""
    program = Program(*arguments, log=log, fault=fault, **options)
    code = program.wait()
    return code, program.said()
