"""Generated bad input, by thousands: is there a traceback, a hang, or a file written where none should be?

    python benchmarks/bad_input.py                       all of it, into benchmarks/bad_input.json
    python benchmarks/bad_input.py --share 0.02          a fiftieth

In this process every way in is given its inputs (benchmarks/attacks.py); what may come back is a result, or one of the
project's or Gymnasium's own errors. Through the command line it is an exit code of 0, 1 or 2, with a line `error: …`
where it is 2; most commands run in this process, some in one of their own. An audit hook sees every file that is opened
for writing, and every class that a pickle asks for.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from documented import DOCS, document

CPU_SECONDS, WALL_SECONDS = 20.0, 180.0
"""After which an input counts as a hang; the second is for what waits, on a machine that does other things too."""
LINES = 204
PROCESSES = 10
"""Commands that run in a process of their own."""
SHOWN = 5
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")


RESULT = Path(__file__).resolve().with_name("bad_input.json")
"""Where the whole run is kept, which docs/security.md shows."""


class Hang(BaseException):
    """An input took too long."""


class Watch:
    """What this process does to files, and what pickles it loads, from now on."""

    def __init__(self, room: Path) -> None:
        self.room, self.outside, self.pickles = room.resolve(), set[str](), set[str]()
        self.on = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "pickle.find_class":
            self.pickles.add(str(arguments))
        elif event == "open" and isinstance(arguments[0], str | bytes):
            mode, flags = arguments[1] or "", arguments[2]
            if any(sign in mode for sign in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._note(arguments[0])
        elif event in WRITES and isinstance(arguments[0], str | bytes):
            self._note(arguments[0])

    def _note(self, path: str | bytes) -> None:
        text = os.path.realpath(os.fsdecode(path))
        if text != "/dev/null" and "__pycache__" not in text and not Path(text).is_relative_to(self.room):
            self.outside.add(text)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise :class:`Hang` in what runs inside for too long."""

    fired = []

    def late(number: int, frame: FrameType | None) -> None:
        fired.append(number)
        raise Hang

    kinds = ((signal.ITIMER_PROF, signal.SIGPROF, CPU_SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, WALL_SECONDS))
    for timer, number, seconds in kinds:
        signal.signal(number, late)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _, _ in kinds:
            signal.setitimer(timer, 0)
    if fired:  # raised where exceptions are ignored
        raise Hang


def count(name: str, inputs: Any, attack: Callable[[Any], object], tries: int, seed: int) -> dict[str, Any]:
    """Give one way in its inputs."""
    import gymnasium
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from dlr_core.errors import DLRError

    found = {"name": name, "tried": 0, "refused": 0, "accepted": 0, "tracebacks": 0, "hangs": 0, "examples": []}

    def note(kind: str, value: Any, error: BaseException) -> None:
        found[kind] += 1
        if len(found["examples"]) < SHOWN:
            last = "".join(traceback.format_exception(error)[-3:])[-600:]
            found["examples"].append({"input": repr(value)[:300], "error": last})

    @seeded(seed)
    @settings(
        max_examples=tries, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(inputs)
    def one(value: Any) -> None:
        if found["tried"] >= tries:
            return
        found["tried"] += 1
        try:
            with limited(), contextlib.redirect_stdout(io.StringIO()):
                attack(value)
            found["accepted"] += 1
        except (DLRError, gymnasium.error.Error):
            found["refused"] += 1
        except Hang as error:
            note("hangs", value, error)
        except Exception as error:
            note("tracebacks", value, error)

    began = time.perf_counter()
    for attempt in range(20):  # Hypothesis stops early where it has seen everything: the same again counts too
        if found["tried"] >= tries:
            break
        seeded(seed + 1000 * attempt)(one)()
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


# ---- the command line ------------------------------------------------------------------------------------------------


def commands(shop: Any, rng: random.Random, tries: int) -> Iterator[list[str]]:
    """Command lines that are wrong in some way; none that could train."""
    import hostile
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    lines: list[list[str]] = []
    run, room = str(shop.run), shop.room
    nothing = ["run", "--out", str(room / "out"), "--overwrite", "--steps", "0", "--set", "eval.questions=0",
               "--set", "task.pool=8", "--set", "loggers=[]"]  # fmt: skip
    names = [
        "run",
        "eval",
        "baseline",
        "reproduce",
        "ask",
        "push",
        "sweep",
        "report",
        "space",
        "plugins",
        "doctor",
        "list",
    ]

    @seeded(rng.randrange(2**30))
    @settings(
        max_examples=tries, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(
        hostile.assignment(shop.paths),
        (hostile.NASTY | hostile.TEXT).filter(lambda text: "\0" not in text),
        hostile.misspelt(names),
        hostile.damaged(shop.toml_text),
        shop.folder(shop.run, ".json", ".jsonl"),
        shop.folder(shop.model),
    )
    def draw(setting: str, text: str, name: str, toml: bytes, broken: Any, model: Any) -> None:
        setting = setting.replace("\0", "?")
        number = len(lines)
        path = room / f"cli-{number % 40}.toml"
        menu = [
            ["run", "--dry-run", "--set", setting],
            ["run", "--dry-run", "--set", setting, "--set", text, "--assistant", text, "--minutes", text],
            ["run", "--dry-run", "--config", ("toml", path, toml)],
            [*nothing, "--main-model", ("copy", shop.model, model)],
            [*nothing, "--main-model", text or "x"],
            ["run", "--curriculum", text, "--dry-run"],
            ["run", "--resume", text or "x", "--dry-run"],
            ["run", "--resume", ("copy", shop.run, broken), "--dry-run"],
            ["eval", ("copy", shop.run, broken), "--saved"],
            ["eval", ("copy", shop.run, broken), "--saved", "--markdown"],
            ["eval", run, "--n", text, "--split", text],
            ["report", ("copy", shop.run, broken), "--out", str(room / "page.html")],
            ["ask", ("copy", shop.run, broken), "1 + 1 ="],
            ["reproduce", ("copy", shop.run, broken), "--steps", "99999", "--out", str(room / "again")],
            ["baseline", text or "x", "--set", setting, "--out", str(room / "base")],
            ["sweep", ("toml", path, toml), "--dry-run", "--out", str(room / "sweep")],
            ["sweep", str(shop.sweep), "--part", text, "--dry-run", "--out", str(room / "sweep")],
            ["space", "fit", str(room / "fit"), "--set", setting, "--chart", text, "--main-model", str(room / "no")],
            ["plugins", "check", text],
            ["plugins", "new", text, "--out", str(room / "new")],
            ["push", run, text],
            ["list", text],
            [name, text],
            [rng.choice(names), f"--{text}", text],
        ]  # fmt: skip
        lines.append(menu[number % len(menu)])

    draw()
    yield from lines[:tries]


def ready(shop: Any, line: list[Any]) -> list[str]:
    """The command line, its files made."""
    made = []
    for part in line:
        if isinstance(part, tuple) and part[0] == "toml":
            part[1].write_bytes(part[2])
            made.append(str(part[1]))
        elif isinstance(part, tuple):
            made.append(str(shop.copy(part[1], *part[2])))
        else:
            made.append(part)
    return made


def judge(code: int, err: str) -> str | None:
    """What is wrong with how a command ended; None if nothing is."""
    lines = [line for line in err.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in err:
        return "traceback"
    if code == 2 and not any(line.startswith("error: ") for line in lines):
        return "no error line"
    return None if code in (0, 1, 2) else f"exit code {code}"


def in_process(arguments: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command run in this process."""
    from dlr_cli.app import main

    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["dlr", *arguments]
    try:
        with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as left:
        return (left.code or 0) if isinstance(left.code, int) else 1, err.getvalue()
    finally:
        sys.argv = before
    return 0, err.getvalue()


def in_its_own(arguments: list[str]) -> tuple[int, str]:
    """The same in a process of its own."""
    code = "from dlr_cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, timeout=WALL_SECONDS, check=False
    )
    return done.returncode, done.stderr.decode(errors="replace")


def command_line(shop: Any, tries: int, processes: int, seed: int) -> dict[str, Any]:
    """Give the command line its inputs."""
    zeros = dict.fromkeys(("tried", "processes", "refused", "accepted", "tracebacks", "hangs"), 0)
    found: dict[str, Any] = {"name": "command line", **zeros, "examples": []}
    began, rng = time.perf_counter(), random.Random(seed)
    for number, line in enumerate(commands(shop, rng, tries)):
        own = number % max(1, tries // max(processes, 1)) == 0 and found["processes"] < processes
        arguments = ready(shop, line)
        found["tried"] += 1
        found["processes"] += own
        wrong: str | None
        err = ""
        try:
            code, err = (in_its_own if own else in_process)(arguments)
            wrong = judge(code, err)
            found["refused" if code else "accepted"] += wrong is None
            found["tracebacks"] += wrong is not None
        except (Hang, subprocess.TimeoutExpired):
            wrong = "hang"
            found["hangs"] += 1
        except Exception:
            wrong, err = "traceback", traceback.format_exc()
            found["tracebacks"] += 1
        if wrong and len(found["examples"]) < 4 * SHOWN:
            found["examples"].append({"input": repr(arguments)[:400], "error": f"{wrong}: {err[-600:]}"})
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


# ---- all of it -------------------------------------------------------------------------------------------------------


def prepare(room: Path, model: Path | None = None) -> Any:
    """A tiny model, a run on it, and everything that is attacked."""
    from attacks import Workshop, setting_paths

    from dlr_core.testing.tiny import tiny_model

    model = model or tiny_model(room / "model")
    run = room / "run"
    small = {"task.pool": 8, "decoder.max_new_tokens": 3, "space.num_latents": 2, "space.latent_dim": 4,
             "assistant.width": 16, "assistant.layers": 1, "batch.questions": 2, "batch.samples": 2,
             "eval.questions": 3,
             "eval.prompt_questions": 1, "replay.search": 0, "loggers": "[]"}  # fmt: skip
    flags = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    code, err = in_process(["run", "--main-model", str(model), "--steps", "1", "--out", str(run), "--json", *flags])
    if code:
        raise SystemExit(f"the run to attack could not be made: {err}")
    shop = Workshop(room, model, run)
    shop.paths, shop.sweep = setting_paths(), Path(__file__).with_name("ideas.toml").resolve()
    shop.toml_text = shop.sweep.read_bytes()
    return shop


def attack_all(
    shop: Any, watch: Watch, share: float, seed: int, say: Callable[[str], None], *, lines: int, processes: int
) -> dict[str, Any]:
    """A share of the inputs in this process, and so many command lines; what came of it."""
    families = []
    watch.on = True
    for family in shop.families():
        tries = max(1, round(share * family.count))
        families.append(count(family.name, family.inputs, family.attack, tries, seed))
        say(summary(families[-1]))
    line = command_line(shop, lines, processes, seed)
    say(summary(line))
    watch.on = False
    canary = [str(path) for path in shop.room.rglob("CANARY")]
    keys = ("tried", "refused", "accepted", "tracebacks", "hangs")
    return {
        "in_process": {key: sum(family[key] for family in families) for key in keys},
        "command_line": {key: line[key] for key in (*keys, "processes")},
        "files_outside": sorted(watch.outside),
        "pickled_classes": sorted(watch.pickles),
        "code_executed": canary,
        "families": families,
        "command_line_examples": line["examples"],
    }


def as_markdown(result: dict[str, Any]) -> str:
    """The result as docs/security.md has it."""
    keys = ("tried", "refused", "accepted", "tracebacks", "hangs")
    line = {"name": f"command line ({result['command_line']['processes']} in processes of their own)"}
    rows = [
        *result["families"],
        {"name": "**all in process**", **result["in_process"]},
        {**line, **result["command_line"]},
    ]
    head = "| way in | " + " | ".join(keys) + " |\n|---" + "|---:" * len(keys) + "|\n"
    body = "\n".join(f"| {row['name']} | " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows)
    outside, pickles, code = (len(result[key]) for key in ("files_outside", "pickled_classes", "code_executed"))
    return (
        f"{head}{body}\n\nFiles written outside the scratch folder: {outside}. Classes loaded from pickles: {pickles}. "
        f"Files that text of a model made: {code}.\nMade by `{result['command']}`."
    )


def summary(found: dict[str, Any]) -> str:
    """One line of a way in."""
    parts = [f"{found[key]} {key}" for key in ("tried", "refused", "accepted", "tracebacks", "hangs")]
    return f"{found['name']}: {', '.join(parts)} ({found['seconds']:.0f} s)"


def main() -> None:
    """Attack, print, write; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs (1: 10,980 and 204 command lines)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    target = args.json.resolve()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        (room / "tmp").mkdir()
        os.environ |= {"TMPDIR": str(room / "tmp"), "DLR_CACHE": str(room / "cache"), "MPLCONFIGDIR": str(room / "mpl")}
        tempfile.tempdir = str(room / "tmp")
        os.chdir(room)
        began = time.perf_counter()
        shop = prepare(room)
        lines, processes = max(24, round(args.share * LINES)), max(1, round(args.share * PROCESSES))
        result = attack_all(
            shop, Watch(room), args.share, args.seed, lambda text: print(text, flush=True),
            lines=lines, processes=processes,
        )  # fmt: skip
        os.chdir(target.parent)
    totals = result["in_process"], result["command_line"]
    bad = sum(part[key] for part in totals for key in ("tracebacks", "hangs"))
    bad += sum(len(result[key]) for key in ("files_outside", "pickled_classes", "code_executed"))
    about = {"command": f"python benchmarks/bad_input.py --share {args.share:g} --seed {args.seed}",
             "python": platform.python_version(), "seconds": round(time.perf_counter() - began)}  # fmt: skip
    target.write_text(json.dumps({**about, "found": bad, **result}, indent=1) + "\n", encoding="utf-8")
    print(f"{totals[0]['tried']} inputs in process, {totals[1]['tried']} command lines: {bad} found")
    if target == RESULT:
        document(DOCS / "security.md", "bad-input", as_markdown(json.loads(target.read_text(encoding="utf-8"))))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
