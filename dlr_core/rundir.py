"""What a run leaves behind: a folder with manifest, metrics, checkpoints, traces and the table."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlr_core.config import RunConfig
from dlr_core.cost import total_cost
from dlr_core.errors import RunFolderError
from dlr_core.provenance import provenance

LOGS = ("metrics", "timings")


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary name and rename it, so that a reader never sees half a file."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def check_free(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that a run may not take; called before anything slow, so that a failed start costs nothing.

    Raises:
        RunFolderError: it is not empty, is to be overwritten and is no run folder, or cannot be read.
    """
    try:
        taken = not resume and path.exists() and any(path.iterdir())
    except OSError as error:
        raise RunFolderError(f"cannot write the run folder {path}: {error.strerror or error}") from None
    if taken and not overwrite:
        raise RunFolderError(f"{path} is not empty; choose another --out, or pass --resume or --overwrite")
    if taken and not (path / "manifest.json").is_file():
        raise RunFolderError(f"{path} is not a run folder: it will not be overwritten")


class RunFolder:
    """A run's folder, open for writing."""

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.path = path
        try:
            check_free(path, resume=resume, overwrite=overwrite)
            if not resume and path.exists():
                shutil.rmtree(path)
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            if isinstance(error, RunFolderError):
                raise
            raise RunFolderError(f"cannot write the run folder {path}: {error.strerror or error}") from None

    def _open(self) -> None:
        self._logs = {name: (self.path / f"{name}.jsonl").open("a", encoding="utf-8") for name in LOGS}

    def truncate_logs(self, steps: int) -> None:
        """Drop what was logged after step ``steps``: a resumed run logs it again."""
        for name, log in self._logs.items():
            log.close()
            kept = [row for row in read_log(self.path, name) if row["step"] <= steps]
            (self.path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._open()

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one step to metrics.jsonl; its ``phases`` (seconds) go to timings.jsonl.

        So two runs of one seed leave the same metrics.jsonl but for ``seconds`` and, where time is the nearer limit,
        ``progress`` and what follows from it once the learning rates fall.
        """
        phases = metrics.get("phases", {})
        rest = {key: value for key, value in metrics.items() if key != "phases"}
        for name, row in (("metrics", rest), ("timings", {"step": metrics["step"], **phases})):
            self._logs[name].write(json.dumps(row) + "\n")
            self._logs[name].flush()

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
        path = self.path / "manifest.json"
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            described = {**described, **old, "config": described["config"]}  # a resumed run may have new limits
        for key, value in more.items():
            described[key] = {**described[key], **value} if isinstance(value, dict) and key in described else value
        write_json(path, described)

    def note_resume(self, step: int) -> None:
        """Add to the manifest that the run goes on after ``step``, and with what."""
        path = self.path / "manifest.json"
        manifest = read_manifest(self.path)
        manifest.setdefault("resumed", []).append({"step": step, **provenance()})
        write_json(path, manifest)

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file into the folder."""
        write_json(self.path / name, value)

    def traces(self, rows: list[dict[str, Any]]) -> None:
        """Write traces.jsonl: question, nearest tokens of each latent, completion, rewards."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.path / "traces.jsonl").write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Flush and close every file."""
        for log in self._logs.values():
            log.close()


def read_log(path: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one of a run's JSON-lines files (``metrics``, ``timings``, ``traces``); none if it has none."""
    file = path / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def read_manifest(path: Path) -> dict[str, Any]:
    """A run's manifest.

    Raises:
        RunFolderError: the folder holds no run.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is not a run folder: {error}") from None
    return manifest
