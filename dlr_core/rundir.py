"""What a run leaves behind: a folder with manifest, metrics, checkpoints, traces and the table."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlr_core.config import RunConfig
from dlr_core.cost import total_cost
from dlr_core.durable import write_whole
from dlr_core.errors import RunFolderError
from dlr_core.lock import LOCK, FolderLock, refuse_if_held
from dlr_core.provenance import provenance
from dlr_core.saved import Manifest, check

LOGS = ("metrics", "timings")
MANIFEST = "manifest.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a reader finds whole.

    Raises:
        RunFolderError: it cannot be written.
    """
    write_whole(path, json.dumps(value, indent=2) + "\n")


def check_free(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that a run may not take; called before anything slow, so that a failed start costs nothing.

    Raises:
        RunFolderError: it is not empty, is to be overwritten and is no run folder, is in use, or cannot be read or
            written.
    """
    refuse_if_held(path)
    _refuse_taken(path, resume=resume, overwrite=overwrite)
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunFolderError(f"cannot write the run folder {path}: {there} is read-only")


def _refuse_taken(path: Path, *, resume: bool, overwrite: bool) -> None:
    try:
        taken = not resume and path.exists() and any(not _left_behind(entry) for entry in path.iterdir())
    except OSError as error:
        raise RunFolderError(f"cannot write the run folder {path}: {error.strerror or error}") from None
    if taken and not overwrite:
        raise RunFolderError(f"{path} is not empty; choose another --out, or pass --resume or --overwrite")
    if taken and not (path / MANIFEST).is_file():
        raise RunFolderError(f"{path} is not a run folder: it will not be overwritten")


def _left_behind(entry: Path) -> bool:
    """Whether an entry holds nothing: a run that is killed before its manifest is written leaves such."""
    if entry.name == "checkpoints" and entry.is_dir():
        return not any(entry.iterdir())
    empty = entry.name in [f"{name}.jsonl" for name in LOGS] and not entry.stat().st_size
    return empty or entry.name in (LOCK, f"{MANIFEST}.tmp")


class RunFolder:
    """A run's folder, open for writing, and nobody else's until it is closed."""

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.path = path
        check_free(path, resume=resume, overwrite=overwrite)
        lock: FolderLock | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock = FolderLock(path)
            _refuse_taken(path, resume=resume, overwrite=overwrite)  # again: it was anybody's until now
            if not resume:
                _clear(path)
            (path / "checkpoints").mkdir(exist_ok=True)
            self._open()
        except OSError as error:
            if lock:
                lock.release()
            if isinstance(error, RunFolderError):
                raise
            raise RunFolderError(f"cannot write the run folder {path}: {error.strerror or error}") from None

    def _open(self) -> None:
        # unbuffered: what could not be written must not turn up later
        self._logs = {name: (self.path / f"{name}.jsonl").open("ab", buffering=0) for name in LOGS}

    def truncate_logs(self, steps: int) -> None:
        """Drop what was logged after step ``steps``: a resumed run logs it again."""
        for name, log in self._logs.items():
            log.close()
            kept = [row for row in read_log(self.path, name) if row["step"] <= steps]
            write_whole(self.path / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        self._open()

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one step to metrics.jsonl; its ``phases`` (seconds) go to timings.jsonl.

        So two runs of one seed leave the same metrics.jsonl but for ``seconds`` and, where time is the nearer limit,
        ``progress`` and what follows from it once the learning rates fall.

        Raises:
            RunFolderError: it cannot be written.
        """
        phases = metrics.get("phases", {})
        rest = {key: value for key, value in metrics.items() if key != "phases"}
        for name, row in (("metrics", rest), ("timings", {"step": metrics["step"], **phases})):
            self._append(name, json.dumps(row) + "\n")

    def _append(self, name: str, line: str) -> None:
        log, left = self._logs[name], memoryview(line.encode())
        start = os.fstat(log.fileno()).st_size
        try:
            while left:
                left = left[log.write(left) or 0 :]
        except OSError as error:
            with contextlib.suppress(OSError):
                log.truncate(start)
            raise RunFolderError(f"cannot write {log.name}: {error.strerror or error}") from error

    def sync(self) -> None:
        """Have the logs on the disk: a checkpoint must not know of steps that they have lost.

        Raises:
            RunFolderError: the disk refuses.
        """
        try:
            for log in self._logs.values():
                os.fsync(log.fileno())
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path}: {error.strerror or error}") from error

    def cost(self) -> dict[str, Any]:
        """The account of everything logged so far (:func:`dlr_core.cost.total_cost`)."""
        return total_cost(read_log(self.path, "metrics"), read_log(self.path, "timings"))

    def manifest(self, config: RunConfig, digest: str, **more: Any) -> None:
        """Write or renew manifest.json."""
        described: dict[str, Any] = {
            **provenance(),
            "config": config.model_dump(mode="json"),
            "main_model": {"name": config.decoder.model, "digest_before": digest, "digest_after": None},
            "gold_answers_seen": False,
        }
        path = self.path / MANIFEST
        if path.is_file():
            old = read_manifest(self.path)
            described = {**described, **old, "config": described["config"]}  # a resumed run may have new limits
        for key, value in more.items():
            described[key] = {**described[key], **value} if isinstance(value, dict) and key in described else value
        write_json(path, described)

    def note_resume(self, step: int) -> None:
        """Add to the manifest that the run goes on after ``step``, and with what."""
        manifest = read_manifest(self.path)
        manifest.setdefault("resumed", []).append({"step": step, **provenance()})
        write_json(self.path / MANIFEST, manifest)

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file into the folder."""
        write_json(self.path / name, value)

    def traces(self, rows: list[dict[str, Any]]) -> None:
        """Write traces.jsonl: question, nearest tokens of each latent, completion, rewards."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_whole(self.path / "traces.jsonl", text)

    def close(self) -> None:
        """Close every file and let go of the folder."""
        for log in self._logs.values():
            log.close()
        self._lock.release()


def _clear(path: Path) -> None:
    """Empty a folder; the manifest goes last, so that what is left half-way can still be overwritten."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def read_log(path: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one of a run's JSON-lines files (``metrics``, ``timings``, ``traces``); none if it has none.

    A last line without its end is what a run was writing when it was killed, or the disk was full: it is left out.

    Raises:
        RunFolderError: another line is damaged.
    """
    file = path / f"{name}.jsonl"
    if not file.is_file():
        return []
    *lines, last = file.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RunFolderError(f"{file}:{number}: not JSON: {error}") from None
    with contextlib.suppress(ValueError):
        rows += [json.loads(last)] if last else []
    return rows


def read_manifest(path: Path) -> dict[str, Any]:
    """A run's manifest.

    Raises:
        RunFolderError: the folder holds no run.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is not a run folder: {error}") from None
    check(Manifest, manifest, path / "manifest.json")
    return manifest
