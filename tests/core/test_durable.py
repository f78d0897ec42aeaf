"""Files that are whole or not there, folders that are what was written, and one process at a time in each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlr_core.config import RunConfig
from dlr_core.durable import damage, read_seal, seal, write_whole
from dlr_core.errors import RunFolderError
from dlr_core.lock import LOCK, FolderLock, refuse_if_held
from dlr_core.rundir import RunFolder, check_free, read_log


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"cannot write .*file: No space left on device"):
        write_whole(path, "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").write_bytes(b"second")
    seal(tmp_path, step=7)
    return tmp_path


def test_a_seal_tells_every_change_and_names_the_file(sealed: Path) -> None:
    assert damage(sealed) is None
    assert read_seal(sealed)["step"] == 7
    (sealed / "b").write_bytes(b"sEcond")
    assert damage(sealed) == "b is not what was written (its digest differs)"
    (sealed / "b").unlink()
    assert damage(sealed) == "b: No such file or directory"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {}}'])
def test_a_seal_that_is_torn_is_damage(sealed: Path, text: str) -> None:
    (sealed / "seal.json").write_text(text)
    assert damage(sealed) == "seal.json cannot be read"


def test_a_seal_reads_no_file_outside_its_folder(sealed: Path) -> None:
    (sealed / "seal.json").write_text(json.dumps({"files": {"../../etc/hostname": "0"}}))
    assert damage(sealed) == "../../etc/hostname: No such file or directory"


# ---- one process at a time -----------------------------------------------------------------------------------------


def test_a_folder_is_held_until_it_is_released_and_can_then_be_had(tmp_path: Path) -> None:
    refuse_if_held(tmp_path)
    lock = FolderLock(tmp_path)
    for ask in (FolderLock, refuse_if_held):
        with pytest.raises(RunFolderError, match=f"is in use by process {os.getpid()}: wait for it to end"):
            ask(tmp_path)
    lock.release()
    lock.release()
    assert not (tmp_path / LOCK).exists()
    FolderLock(tmp_path).release()


def test_the_system_releases_what_a_killed_process_held(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from dlr_core.lock import FolderLock; "
        "held = FolderLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert (tmp_path / LOCK).is_file()
    refuse_if_held(tmp_path)
    FolderLock(tmp_path).release()


# ---- a run folder --------------------------------------------------------------------------------------------------


def test_a_run_folder_is_in_use_until_it_is_closed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for more in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(RunFolderError, match="is in use by process"):
            RunFolder(tmp_path / "run", **more)
    folder.close()
    RunFolder(tmp_path / "run", resume=True).close()


def test_what_a_run_leaves_that_died_before_its_manifest_is_no_obstacle(tmp_path: Path) -> None:
    RunFolder(tmp_path).close()
    (tmp_path / LOCK).write_text("process 1\n")
    (tmp_path / "manifest.json.tmp").write_text("{")
    check_free(tmp_path, resume=False, overwrite=False)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="is not empty"):
        check_free(tmp_path, resume=False, overwrite=False)


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(RunFolderError, match=f"cannot write the run folder .*: {tmp_path} is read-only"):
        check_free(tmp_path / "some" / "run", resume=False, overwrite=False)


def test_overwriting_keeps_the_manifest_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed half-way, what is left is still a run folder, which can be overwritten again."""
    for name in ("eval.json", "manifest.json", "zzz.json"):
        (tmp_path / name).write_text("{}")
    gone: list[str] = []
    unlink = Path.unlink

    def noted(self: Path, missing_ok: bool = False) -> None:
        gone.append(self.name)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    folder = RunFolder(tmp_path, overwrite=True)
    assert sorted(gone[:2]) == ["eval.json", "zzz.json"]
    assert gone[2] == "manifest.json"
    folder.close()


def test_a_log_that_was_torn_ends_at_its_last_whole_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"step": step, "phases": {"rollout": 0.5}})
    folder.close()
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-4])
    assert [row["step"] for row in read_log(tmp_path, "metrics")] == [1, 2]
    again = RunFolder(tmp_path, resume=True)
    again.truncate_logs(2)
    again.log({"step": 3})
    again.close()
    assert [row["step"] for row in read_log(tmp_path, "metrics")] == [1, 2, 3]
    assert [row["step"] for row in read_log(tmp_path, "timings")] == [1, 2, 3]
    file.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl:2: not JSON"):
        read_log(tmp_path, "metrics")


def test_a_row_that_does_not_fit_on_the_disk_is_not_logged_in_part(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"step": 1})

    class Full:
        """Takes three bytes, then none."""

        name, room = "metrics.jsonl", 3

        def __init__(self, file):
            self.file = file

        def write(self, data):
            if not self.room:
                raise OSError(28, "No space left on device")
            self.room = 0
            return self.file.write(data[:3])

        def __getattr__(self, name):
            return getattr(self.file, name)

    true = folder._logs["metrics"]
    folder._logs["metrics"] = Full(true)
    with pytest.raises(RunFolderError, match=r"cannot write metrics\.jsonl: No space left on device"):
        folder.log({"step": 2})
    folder._logs["metrics"] = true
    folder.log({"step": 2})
    folder.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_settings_of_a_run_name_the_limits_that_keep_it_alive() -> None:
    config = RunConfig()
    assert config.judge_seconds >= 60
    assert config.optim.patience >= 2
    assert config.checkpoint.best
