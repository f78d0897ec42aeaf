"""``dlr``: the program. Nothing heavy is imported until a command runs."""

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.main import get_command

from dlr_cli.commands.ask import ask
from dlr_cli.commands.baseline import baseline
from dlr_cli.commands.doctor import doctor
from dlr_cli.commands.eval import evaluate
from dlr_cli.commands.listing import listing
from dlr_cli.commands.plugins import plugins_app
from dlr_cli.commands.push import push
from dlr_cli.commands.report import report
from dlr_cli.commands.reproduce import reproduce
from dlr_cli.commands.run import run
from dlr_cli.commands.serve import serve
from dlr_cli.commands.space import space_app
from dlr_cli.commands.sweep import sweep
from dlr_core.errors import ConfigError, DLRError, DLRWarning, RankError
from dlr_core.plain import one_line
from dlr_core.values import is_text

app = typer.Typer(
    name="dlr",
    help="DeepLatent Reasoning: train a small assistant to steer a frozen language model through continuous latents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run)
app.command("eval")(evaluate)
app.command("baseline")(baseline)
app.command("reproduce")(reproduce)
app.command("ask")(ask)
app.command("push")(push)
app.command("sweep")(sweep)
app.command("report")(report)
app.command("serve")(serve)
app.command("doctor")(doctor)
app.command("list")(listing)
app.add_typer(space_app, name="space")
app.add_typer(plugins_app, name="plugins")


NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "storage size calculation overflowed")
"""How PyTorch says that it was asked for more than there is."""
UsageError: Any = typer.BadParameter.__bases__[0]
"""Of Click, or of the copy of it that newer versions of Typer hold."""


def main() -> None:
    """Entry point of the ``dlr`` script: what a user caused is a line on stderr for each problem, and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the program
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _terminable(), _plain_warnings():
            sys.exit(run_program(sys.argv[1:]))
    except ConfigError as error:
        _refuse(*(error.problems or (str(error),)))
    except RankError as error:
        if not error.told:
            print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except DLRError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        _refuse(str(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error).lower() for text in NO_MEMORY):
            raise
        _refuse("not enough memory: ask for less at once (batch, task, latents), or take a smaller main model")


def run_program(arguments: Sequence[str]) -> int:
    """Run a command; its exit code.

    Raises:
        ConfigError: an option or argument that there is not, or that is no text.
    """
    if any(not is_text(argument) for argument in arguments):
        raise ConfigError("expected arguments in UTF-8")
    try:
        code = get_command(app)(list(arguments), prog_name="dlr", standalone_mode=False, obj=list(arguments))
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            print(error.format_message(), file=sys.stderr)
            return 2
        raise ConfigError(error.format_message()) from None
    return code if isinstance(code, int) else 0


def _refuse(*problems: str) -> NoReturn:
    for problem in problems:
        print(f"error: {_rank()}{one_line(problem)}", file=sys.stderr)
    sys.exit(2)


def _rank() -> str:
    """Which of several processes of one run this is, where it is not the first."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" or os.environ.get("WORLD_SIZE", "1") == "1" else f"rank {rank}: "


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the program as Ctrl-C does, so that files are closed and folders let go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """This project's own warnings are one line on stderr, like its errors."""
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, DLRWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            shown(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


if __name__ == "__main__":
    main()
