"""Did a run survive? What it left, held against what an unbroken one left."""

import shutil
from pathlib import Path

from dlr_process import run

from dlr_core.durable import damage, read_seal
from dlr_core.reproduce import first_difference
from dlr_core.rundir import read_log, read_manifest


def difference(found: Path, unbroken: Path) -> str | None:
    """Where two finished runs differ, times apart; None if they do not, to the last bit of the weights."""
    was, now = read_log(unbroken, "metrics"), read_log(found, "metrics")
    if [row["step"] for row in was] != [row["step"] for row in now]:
        return f"{len(now)} steps logged, not {len(was)}"
    for old, new in zip(was, now, strict=True):
        if (parted := first_difference(old, new)) is not None:
            return str(parted)
    last = f"checkpoints/step-{was[-1]['step']:06d}"
    for part in ("weights.safetensors", "optimizer.safetensors"):
        if read_seal(found / last)["files"][part] != read_seal(unbroken / last)["files"][part]:
            return f"other bytes in {part}"
    return None


def corrupt(run_folder: Path) -> str | None:
    """A checkpoint that is not what was written; None if there is none."""
    for checkpoint in sorted((run_folder / "checkpoints").glob("step-*")):
        if not (checkpoint / "seal.json").is_file():
            return f"{checkpoint.name} has no seal"
        if (reason := damage(checkpoint)) is not None:
            return f"{checkpoint.name}: {reason}"
    return None


def logged(run_folder: Path) -> int:
    """Steps in metrics.jsonl."""
    return len(read_log(run_folder, "metrics"))


def resume(run_folder: Path, unbroken: Path, command: list[str]) -> tuple[str | None, int]:
    """Go on with a run after its fault.

    Returns:
        What is wrong with the outcome, None if nothing is; and how many steps had to be trained again.
    """
    done = logged(run_folder)
    if (run_folder / "manifest.json").is_file():
        command = ["run", "--resume", str(run_folder)]
    code, said = run(*command, log=run_folder.with_suffix(".resumed"))
    if code:
        return f"exit code {code}: {said.strip().splitlines()[-1:]}", 0
    resumed = read_manifest(run_folder).get("resumed", [])
    return difference(run_folder, unbroken), done - (resumed[-1]["step"] if resumed else 0)


def one_line(said: str) -> str | None:
    """The one line of an error that a program has ended with; None if it said something else, or more."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    return errors[0].removeprefix("error: ") if len(errors) == 1 and "Traceback" not in said else None


def copied(folder: Path, to: Path) -> Path:
    """A run folder to be spoilt."""
    return Path(shutil.copytree(folder, to))
