"""Questions of generators that would ask others in every process: drawn in one of its own, in which they are the same.

Most of them draw from sets, which Python orders by a hash that differs from process to process; one draws from Python's
own generator. A run could not be resumed on them, nor compared with another.
"""

import ast
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

from dlr_core.errors import DataError, first_line

HASHED = (
    "isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication", "ransom_note", "word_ladder",
)  # fmt: skip
"""Of reasoning-gym 0.1's generators those that differed between two processes."""


def drawn(name: str, size: int, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A generator's entries, one after another, as long as they are asked for.

    Raises:
        DataError: it cannot draw.
    """
    code = f"import json, sys; from {__name__} import write; write(*json.loads(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps([name, size, dict(settings)])],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at a terminal is for the run
        text=True,
    )
    lines = cast(IO[str], process.stdout)
    try:
        for line in lines:
            entry = ast.literal_eval(line)
            if isinstance(entry, str):
                raise DataError(f"reasoning-gym:{name} cannot draw with its settings: {entry}")
            yield entry
        if process.wait():
            raise DataError(
                f"reasoning-gym:{name}: the process that draws its questions ended with {process.returncode}"
            )
    finally:
        process.kill()
        process.wait()
        lines.close()


def write(name: str, size: int, settings: Mapping[str, Any]) -> None:
    """Print every entry as a literal, a line each; or a text that says why there are no more."""
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(name, seed=0, size=size, **settings)
        for number in range(size):
            random.seed(number)  # some draw from Python's own generator as well
            try:
                entry = dataset[number]
            except IndexError:  # some run dry before their size
                return
            print(repr(dict(entry)), flush=True)
    except BrokenPipeError:  # enough have been drawn
        os._exit(0)
    except Exception as error:  # a generator may make anything of settings that it did not expect
        print(repr(first_line(error)), flush=True)
