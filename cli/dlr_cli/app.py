"""``dlr``: the program. Nothing heavy is imported until a command runs."""

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

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
from dlr_core.errors import ConfigError, DamageWarning, DLRError

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


def main() -> None:
    """Entry point of the ``dlr`` script: what a user caused is one line on stderr and exit code 2."""
    try:
        with _terminable(), _plain_warnings():
            app()
    except ConfigError as error:
        for problem in error.problems or (str(error),):
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except DLRError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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
        if issubclass(category, DamageWarning):
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
