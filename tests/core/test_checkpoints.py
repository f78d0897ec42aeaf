"""Which checkpoints are kept, which is the best, which is trusted."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlr_core import checkpoints
from dlr_core.checkpoints import (
    Checkpoints,
    best_checkpoint,
    latest_checkpoint,
    newest_intact,
    save_checkpoint,
    set_aside,
)
from dlr_core.durable import seal
from dlr_core.errors import DamageWarning, RunFolderError
from dlr_core.settings import CheckpointSettings


def write(trainer: Any, final: Path, **about: Any) -> None:
    """A checkpoint of one small file."""
    final.mkdir(parents=True)
    (final / "weights.safetensors").write_text(str(trainer.step_number))
    seal(final, **about)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "write_checkpoint", write)


def at(step: int) -> Any:
    return SimpleNamespace(step_number=step)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def train(run: Path, rewards: list[float | None], **settings: Any) -> Checkpoints:
    """A run that saves after every second step."""
    made = Checkpoints(run, CheckpointSettings(every=2, keep=2, **settings))
    for step, reward in enumerate(rewards, 1):
        made.saw({"reward": reward})
        if made.due(step):
            made.save(at(step))
    return made


def test_the_newest_are_kept_and_the_one_after_the_best_rewards(tmp_path: Path) -> None:
    train(tmp_path, [0, 0, 0.9, 0.9, 1.0, 0, 0.5, 0.5, 0.6, 0.6])
    assert names(tmp_path) == ["step-000004", "step-000008", "step-000010"]
    assert best_checkpoint(tmp_path).name == "step-000004"
    assert latest_checkpoint(tmp_path).name == "step-000010"


def test_without_rewards_or_unasked_only_the_newest_are_kept(tmp_path: Path) -> None:
    train(tmp_path / "gold", [None] * 8)
    train(tmp_path / "plain", [1, 1, 0, 0, 0, 0, 0, 0], best=False)
    for run in ("gold", "plain"):
        assert names(tmp_path / run) == ["step-000006", "step-000008"]
        assert best_checkpoint(tmp_path / run).name == "step-000008"


def test_a_resumed_run_judges_its_checkpoints_by_the_same_steps(tmp_path: Path) -> None:
    rows = [{"reward": reward} for reward in (0.0, 1.0, 0.5)]
    resumed = Checkpoints(tmp_path, CheckpointSettings(every=2), rows)
    resumed.saw({"reward": 0.1})
    saved = resumed.save(at(4))
    assert json.loads((saved / "seal.json").read_text())["score"] == pytest.approx(0.3)


def test_a_hundred_thousand_steps_more_are_still_in_order(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        save_checkpoint(at(step), tmp_path / "checkpoints", 2)
    assert names(tmp_path) == ["step-1000000", "step-1000001"]
    assert newest_intact(tmp_path)[0].name == "step-1000001"


def spoil(checkpoint: Path) -> None:
    (checkpoint / "weights.safetensors").write_text("?")


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path: Path) -> None:
    train(tmp_path, [1, 1, 0, 0, 0, 0])
    newest, before = (tmp_path / "checkpoints" / f"step-00000{n}" for n in (6, 4))
    spoil(newest)
    reason = "weights.safetensors is not what was written (its digest differs)"
    assert newest_intact(tmp_path) == (before, {newest: reason})
    with pytest.warns(DamageWarning, match="step-000006 is damaged .*; step-000004 is used"):
        assert latest_checkpoint(tmp_path) == before
    assert set_aside(newest).name == "damaged-step-000006"
    assert latest_checkpoint(tmp_path) == before
    spoil(tmp_path / "checkpoints" / "step-000002")
    with pytest.raises(RunFolderError, match="step-000002, the run's best checkpoint, is damaged"):
        best_checkpoint(tmp_path)


def test_where_none_is_intact_each_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"has no checkpoint$"):
        newest_intact(tmp_path)
    train(tmp_path, [0, 0, 0, 0])
    for number in (2, 4):
        spoil(tmp_path / "checkpoints" / f"step-00000{number}")
    with pytest.raises(RunFolderError, match=r"no intact checkpoint: step-000004: weights.*; step-000002: weights"):
        newest_intact(tmp_path)


def test_a_checkpoint_that_has_lost_its_seal_is_damaged_and_one_from_before_seals_is_not(tmp_path: Path) -> None:
    train(tmp_path, [0, 0, 0, 0])
    newest = tmp_path / "checkpoints" / "step-000004"
    (newest / "seal.json").unlink()
    (newest / "state.json").write_text('{"step": 4}')
    assert newest_intact(tmp_path)[0] == newest
    (newest / "state.json").write_text('{"step": 4, "process": {}}')
    assert newest_intact(tmp_path)[1] == {newest: "seal.json is missing"}
    (newest / "state.json").write_text('{"step"')
    assert newest_intact(tmp_path)[1] == {newest: "state.json cannot be read"}
    (newest / "weights.safetensors").unlink()
    assert newest_intact(tmp_path)[1] == {newest: "weights.safetensors is missing"}


def test_what_a_killed_run_left_half_written_is_removed_with_the_next_checkpoint(tmp_path: Path) -> None:
    for stray in (".step-000003.tmp", ".step-000001.old"):
        (tmp_path / "checkpoints" / stray).mkdir(parents=True)
    save_checkpoint(at(4), tmp_path / "checkpoints", 2)
    assert names(tmp_path) == ["step-000004"]
