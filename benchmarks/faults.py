"""docs/reliability.md: runs that are killed, torn, starved and lied to, and what became of them.

python benchmarks/faults.py           # every fault on a tiny random model
python benchmarks/faults.py --real    # and three kills on the real one
python benchmarks/faults.py --only torn  # one kind of fault; other figures stay
python benchmarks/faults.py render    # the page from the figures that are kept

A fault is survived where the run, resumed, ends with the metrics of an unbroken one to the last bit, times apart, and
the same weights and moments; no checkpoint is ever damaged; and the program ends by itself with one line that says what
happened. Figures are kept in benchmarks/results/faults.json. `make faults` is the first of these, with REAL=--real the
second.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "faults"))

from dlr_process import Program, run  # noqa: E402
from misbehaving import REWARDS, toy_run  # noqa: E402
from survival import copied, corrupt, difference, logged, one_line, resume  # noqa: E402

from dlr_core.testing.tiny import tiny_model  # noqa: E402

KEPT = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
STEPS = 8
REAL_STEPS = 6
REAL = "SmolLM2-135M"


@dataclass(frozen=True)
class Trial:
    """One fault, once."""

    fault: str
    problem: str | None
    """Why it was not survived; None if it was."""
    repeated: int
    """Steps that had to be trained again."""


class Bench:
    """A model, an unbroken run on it, and faults to be tried on its like."""

    def __init__(self, folder: Path, command: Callable[[Path], list[str]], steps: int) -> None:
        self.folder, self.command, self.steps = folder, command, steps
        self.count = 0
        self.unbroken = folder / "unbroken"
        code, said = run(*command(self.unbroken), log=folder / "unbroken.log")
        if code:
            raise SystemExit(f"the unbroken run failed: {said}")

    def fresh(self) -> tuple[Path, Path]:
        """A run folder that is not there yet, and a log beside it."""
        self.count += 1
        return self.folder / f"run{self.count}", self.folder / f"run{self.count}.log"

    def outcome(self, fault: str, path: Path, problem: str | None = None) -> Trial:
        """Resume what a fault has left, and judge it."""
        problem = problem or corrupt(path)
        later, repeated = resume(path, self.unbroken, self.command(path))
        return Trial(fault, problem or later, repeated)

    def kill(self, rng: random.Random) -> Trial:
        """kill -9, at a moment that has nothing to do with what the run is doing."""
        path, log = self.fresh()
        program = Program(*self.command(path), log=log)
        program.wait_for_lines(path / "manifest.json", 1)
        began = time.monotonic()
        last = rng.randrange(self.steps)
        program.wait_for_lines(path / "metrics.jsonl", last)
        time.sleep(rng.uniform(0, (time.monotonic() - began) / max(last, 1) + 0.02))
        with contextlib.suppress(ProcessLookupError):
            os.kill(program.pid, signal.SIGKILL)
        code = program.wait()
        if code == 0:
            return self.kill(rng)  # it was over before
        return self.outcome("kill -9 at a random moment", path, None if code == -9 else f"exit code {code}, not -9")

    def kill_in_files(self, number: int) -> Trial:
        """kill -9 just before one of the operations that checkpoints, logs and manifest are written with."""
        path, log = self.fresh()
        code, _ = run(*self.command(path), log=log, fault="killed_at_file_operation", number=number)
        problem = None if code == -9 else f"exit code {code}, not -9"
        return self.outcome("kill -9 while a checkpoint, the log or the manifest is written", path, problem)

    def signalled(self, number: int, step: int) -> Trial:
        """Ctrl-C or SIGTERM in the middle of a step."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault="interrupted", number=number, step=step)
        problem = None if code == 130 and "saved; go on with" in said else f"exit code {code}: {said[-200:]}"
        trial = self.outcome("Ctrl-C, SIGTERM", path, problem)
        lost = "steps were lost" if trial.repeated else None
        return Trial(trial.fault, trial.problem or lost, trial.repeated)

    @cached_property
    def interrupted(self) -> Path:
        """A run that Ctrl-C has ended in its seventh rollout."""
        path, log = self.fresh()
        run(*self.command(path), log=log, fault="interrupted", number=signal.SIGINT, step=7)
        return path

    def torn(self, rng: random.Random) -> Trial:
        """The newest checkpoint loses a file's end, a bit of one, or a whole file."""
        path, _ = self.fresh()
        copied(self.interrupted, path)
        newest = sorted((path / "checkpoints").glob("step-*"))[-1]
        file = rng.choice(sorted(newest.iterdir()))
        data, how = bytearray(file.read_bytes()), rng.choice(("cut", "flipped", "gone"))
        if how == "gone":
            file.unlink()
        elif how == "cut":
            file.write_bytes(data[: rng.randrange(len(data))])
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
        found, repeated = resume(path, self.unbroken, self.command(path))
        aloud = f"checkpoint {newest.name} is damaged" in path.with_suffix(".resumed").read_text()
        silent = None if aloud else f"{file.name} {how}: not said"
        return Trial("the newest checkpoint torn or tampered with", found or silent, repeated)

    def starved(self, size: int) -> Trial:
        """No file may grow beyond a size."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault="full_disk", size=size)
        problem = None if code == 2 and one_line(said) else f"exit code {code}: {said[-300:]}"
        return self.outcome("disk full (no file may grow beyond 4 to 12 KB)", path, problem)

    def crowded(self, flag: list[str]) -> Trial:
        """A second run is told to use the folder of one that is at work."""
        path, log = self.fresh()
        first = Program(*self.command(path), log=log)
        first.wait_for_lines(path / "metrics.jsonl", 1)
        os.kill(first.pid, signal.SIGSTOP)
        second = ["run", "--resume", str(path)] if flag == ["--resume"] else [*self.command(path), *flag]
        code, said = run(*second, log=path.with_suffix(".second"))
        os.kill(first.pid, signal.SIGCONT)
        refused = code == 2 and "is in use by process" in (one_line(said) or "")
        problem = None if refused else f"not refused: {said[-200:]}"
        problem = problem or (
            difference(path, self.unbroken) if first.wait() == 0 else f"the first failed: {first.said()}"
        )
        return Trial("a second run told to use the folder of one at work", problem, 0)

    def read_only(self) -> Trial:
        """A folder that cannot be written to, by somebody who is not root."""
        path, log = self.fresh()
        path.mkdir(mode=0o555)
        code, said = run(*self.command(path / "run"), log=log, fault="unprivileged")
        refused = code == 2 and (one_line(said) or "").startswith("cannot write the run folder")
        problem = None if refused else f"exit code {code}: {said[-200:]}"
        return Trial("a read-only output folder: refused before anything is loaded", problem, 0)

    def with_fault(self, name: str, says: str, fault: str, **options: Any) -> Trial:
        """A run with a part that misbehaves: it ends with one line that names the part, and is resumed without."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault=fault, **options)
        problem = None if code == 2 and says in (one_line(said) or "") else f"exit code {code}: {said[-300:]}"
        return self.outcome(name, path, problem)

    def clock(self) -> Trial:
        """The wall clock jumps by days, both ways, all the time."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault="jumping_clock")
        problem = difference(path, self.unbroken) if code == 0 else f"exit code {code}: {said[-200:]}"
        return Trial("the wall clock jumps by days", problem, 0)

    def skipped(self) -> Trial:
        """A few losses are NaN: those updates are left out and counted, and the run goes on."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault="not_finite", first=4, last=5)
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        counted = sum(row.get("skipped_updates", 0) for row in rows)
        good = code == 0 and 0 < counted <= 2 and logged(path) == self.steps and "updates left out" in said
        return Trial(
            "a few losses are NaN: those updates are left out, counted, said", None if good else said[-300:], 0
        )

    def diverged(self) -> Trial:
        """All losses are NaN from some moment on."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault="not_finite", first=8, last=10**9)
        saved = list((path / "diverged").glob("step-*/weights.safetensors"))
        good = code == 2 and saved and "steps in a row had no finite loss" in (one_line(said) or "")
        name = "all losses are NaN: stopped after 5 steps, the state saved"
        return self.outcome(name, path, None if good else f"exit code {code}: {said[-300:]}")

    def spoilt(self, kind: str, says: str) -> Trial:
        """A plugin writes to the frozen model or has it trained: found out, and the run ends."""
        path, log = self.fresh()
        code, said = run(*self.command(path), log=log, fault="thief", kind=kind, call=9)
        problem = None if code == 2 and says in (one_line(said) or "") else f"exit code {code}: {said[-300:]}"
        return Trial("a plugin writes to the main model or has it trained: named, the run ended", problem, 0)


def verifier(greedy: bool) -> Trial:
    """A verifier asked to take all memory, or never to answer."""
    from dlr_plugins.tasks import mathcheck

    eater = "lambda *a, **k: bytearray(1 << 36)" if greedy else "lambda *a, **k: __import__('time').sleep(1e6)"
    child = mathcheck._CHILD
    mathcheck._stop()
    mathcheck._CHILD = f"import math_verify; math_verify.verify = {eater}; {child}"
    first = mathcheck.equivalent("1/2", r"\frac{1}{2}", limit=1.0)
    mathcheck._CHILD = child
    mathcheck._stop()
    second = mathcheck.equivalent("1/2", r"\frac{1}{2}")
    mathcheck._stop()
    name = "a verifier takes all memory" if greedy else "a verifier never answers"
    return Trial(f"{name}: a wrong answer, and the next is judged", None if not first and second else "misjudged", 0)


def toy_trials(bench: Bench, rng: random.Random) -> Iterator[tuple[str, Callable[[], Trial]]]:
    """Every fault on the tiny model, and a word for each."""
    for kind in REWARDS:
        options = {"kind": kind, "call": rng.randrange(5, 40)}
        yield "reward", partial(bench.with_fault, f"a reward that {kind}", "reward Dual", "bad_reward", **options)
    for kind in ("NaN", "wrong shape", "actions out of range"):
        options = {"kind": kind, "call": rng.randrange(5, 40)}
        yield (
            "assistant",
            partial(bench.with_fault, f"an assistant: {kind}", "assistant SmallGPT", "bad_assistant", **options),
        )
    for kind, says in (("writes", "wrote to model.embed_tokens.weight"), ("trains", "made model.embed_tokens.weight"),
                       ("writes to .data", "the main model was changed during the run")):  # fmt: skip
        yield "main-model", partial(bench.spoilt, kind, says)
    for greedy in (True, False):
        yield "verifier", partial(verifier, greedy)
    for flag in ([], ["--overwrite"], ["--resume"]):
        yield "folder", partial(bench.crowded, flag)
    for _ in range(2):
        yield "read-only", bench.read_only
        yield "clock", bench.clock
        yield "nan", bench.skipped
        yield "nan", bench.diverged
    for number in (signal.SIGINT, signal.SIGTERM) * 2:
        yield "signal", partial(bench.signalled, number, rng.randrange(2, 8))
    for _ in range(6):
        yield "torn", partial(bench.torn, rng)
    for _ in range(4):
        yield "disk", partial(bench.starved, rng.randrange(4_000, 12_000))
    for _ in range(20):
        yield "kill", partial(bench.kill, rng)
    for number in rng.sample(range(1, 200), 12):
        yield "files", partial(bench.kill_in_files, number)


def real_run(out: Path) -> list[str]:
    """A short run on the real model, with everything in use."""
    flags = {"batch.questions": 2, "batch.samples": 4, "replay.search": 4, "replay.fresh": 2, "replay.chains": 8,
             "checkpoint.every": 2, "eval.questions": 0, "probe.every": 0, "loggers": "[]", "scorer": "learned",
             "batch.decodes": 2}  # fmt: skip
    settings = [part for key, value in flags.items() for part in ("--set", f"{key}={value}")]
    return ["run", "--steps", str(REAL_STEPS), "--out", str(out), *settings]


def gather(
    trials: Iterable[tuple[str, Callable[[], Trial]]],
    only: list[str] | None,
    keep: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Make the trials, say each, and keep what there is after each."""
    made: dict[str, list[Trial]] = {}
    for number, (word, attempt) in enumerate(trials, 1):
        if only and word not in only:
            continue
        try:
            trial = attempt()
        except AssertionError as error:  # it did not end, or never began
            trial = Trial("a program that had to be killed", str(error), 0)
        made.setdefault(trial.fault, []).append(trial)
        print(number, "survived" if trial.problem is None else "LOST", asdict(trial), flush=True)
        keep(summary(made))


def summary(made: dict[str, list[Trial]]) -> list[dict[str, Any]]:
    """One row a fault."""
    return [
        {
            "fault": fault,
            "tried": len(own),
            "survived": sum(trial.problem is None for trial in own),
            "repeated": max(trial.repeated for trial in own),
            "problems": [trial.problem for trial in own if trial.problem],
        }
        for fault, own in made.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| fault | model | tried | survived | lost |", "|---|---|---:|---:|---|"]
    for row in rows:
        again = f"nothing; at most {row['repeated']} steps trained again" if row["repeated"] else "nothing"
        lost = again if row["survived"] == row["tried"] else "; ".join(row["problems"]).replace("|", "/")
        lines.append(f"| {row['fault']} | {row['model']} | {row['tried']} | {row['survived']} | {lost} |")
    return "\n".join(lines)


def render() -> None:
    """Write the table below the page's marker."""
    rows = json.loads(KEPT.read_text(encoding="utf-8"))
    written, marker, _ = PAGE.read_text(encoding="utf-8").partition("<!-- figures -->\n")
    PAGE.write_text(f"{written}{marker}\n{table(rows)}\n", encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


def main() -> None:
    """Try what is asked for, keep the figures, write the page; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "render"), default="all")
    parser.add_argument("--real", action="store_true", help="also three kills on the real model")
    parser.add_argument("--only-real", action="store_true", help="nothing but those; the toy's figures stay")
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="one kind of fault: kill, files, torn, disk …; repeatable"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    asked = parser.parse_args()
    if asked.what == "render":
        render()
        return
    old = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else []
    rows = {(row["model"], row["fault"]): row for row in old}
    rng, folder = random.Random(asked.seed), Path(tempfile.mkdtemp(prefix="dlr-faults-"))
    folder.chmod(0o755)

    def keep(name: str, own: list[dict[str, Any]]) -> None:
        rows.update({(name, row["fault"]): {"model": name, **row} for row in own})
        KEPT.parent.mkdir(exist_ok=True)
        lines = [json.dumps(row) for row in rows.values()]
        KEPT.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")

    try:
        if not asked.only_real:
            model = tiny_model(folder / "tiny")
            bench = Bench(folder, lambda out: toy_run(model, out, STEPS, judge_seconds=10.0), STEPS + 1)
            gather(toy_trials(bench, rng), asked.only, partial(keep, "tiny"))
        if asked.real or asked.only_real:
            (folder / "real").mkdir()
            bench = Bench(folder / "real", real_run, REAL_STEPS)
            gather([("kill", partial(bench.kill, rng))] * 3, None, partial(keep, REAL))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    render()
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    sys.exit(int(any(row["survived"] < row["tried"] for row in kept)))


if __name__ == "__main__":
    main()
