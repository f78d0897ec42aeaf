"""Runs that are ended, torn, starved or crowded go on to the metrics of an unbroken one, to the last bit."""

import json
import os
import signal

import pytest
from dlr_process import Program, run
from misbehaving import toy_run
from survival import copied, corrupt, difference, one_line, resume

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def command(tiny_model):
    return lambda out, **changes: toy_run(tiny_model, out, STEPS, **changes)


@pytest.fixture(scope="module")
def unbroken(command, folder):
    path = folder / "unbroken"
    code, said = run(*command(path), log=folder / "unbroken.log")
    assert code == 0, said
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["replay_size"] > 4
    assert rows[-1]["frontier"] > 0
    assert any(0 < row.get("question_cache_hits", 0) < 1 for row in rows)  # some prompts are dropped, and come again
    assert sum(row["grad_norm"] > 0 for row in rows) == len(rows)
    return path


@pytest.fixture(scope="module")
def interrupted(command, folder, unbroken):
    """A run that Ctrl-C has ended in its fifth rollout."""
    path = folder / "interrupted"
    code, said = run(*command(path), log=folder / "ctrl-c.log", fault="interrupted", number=signal.SIGINT, step=5)
    assert code == 130, said
    assert "stopping after this step" in said
    assert f"saved; go on with: dlr run --resume {path}" in said.replace("\n", "")
    return path


def test_metrics_of_another_seed_or_other_weights_are_told_apart(unbroken, tmp_path):
    other = copied(unbroken, tmp_path / "other")
    assert difference(other, unbroken) is None
    rows = (other / "metrics.jsonl").read_text().splitlines()
    (other / "metrics.jsonl").write_text("\n".join([rows[0].replace('"gold_nll": ', '"gold_nll": 1'), *rows[1:], ""]))
    assert "gold_nll" in difference(other, unbroken)
    (other / "metrics.jsonl").write_text("\n".join([*rows[:-1], ""]))
    assert "steps logged" in difference(other, unbroken)


@pytest.mark.parametrize("lines", [0, 3])
def test_a_run_killed_at_any_moment_loses_only_the_steps_since_its_checkpoint(command, unbroken, tmp_path, lines):
    path = tmp_path / "run"
    program = Program(*command(path), log=tmp_path / "log")
    assert program.wait_for_lines(path / "manifest.json", 1)
    assert program.wait_for_lines(path / "metrics.jsonl", lines)
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    assert corrupt(path) is None
    problem, repeated = resume(path, unbroken, command(path))
    assert problem is None
    assert repeated <= 2
    assert ("begins again at step 1" in path.with_suffix(".resumed").read_text()) == (lines < 2)


@pytest.mark.parametrize("number", [40, 47])
def test_a_run_killed_while_it_writes_a_checkpoint_is_not_harmed(command, unbroken, tmp_path, number):
    path = tmp_path / "run"
    code, _ = run(*command(path), log=tmp_path / "log", fault="killed_at_file_operation", number=number)
    assert code == -signal.SIGKILL
    assert corrupt(path) is None
    assert resume(path, unbroken, command(path))[0] is None


def test_ctrl_c_in_a_step_loses_nothing(interrupted, unbroken, command, tmp_path):
    path = copied(interrupted, tmp_path / "run")
    assert resume(path, unbroken, command(path)) == (None, 0)


def test_a_second_signal_ends_a_run_at_once_and_what_was_saved_stays(command, unbroken, tmp_path):
    path = tmp_path / "run"
    code, said = run(*command(path), log=tmp_path / "log", fault="interrupted", number=signal.SIGTERM, step=4, times=2)
    assert code == 130
    assert "Traceback" not in said
    assert "saved" not in said
    assert f"go on from the newest checkpoint with: dlr run --resume {path}" in said
    assert resume(path, unbroken, command(path))[0] is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(interrupted, unbroken, command, tmp_path):
    path = copied(interrupted, tmp_path / "run")
    *_, before, newest = sorted((path / "checkpoints").glob("step-*"))
    data = bytearray((newest / "optimizer.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "optimizer.safetensors").write_bytes(data)
    problem, repeated = resume(path, unbroken, command(path))
    assert problem is None
    assert repeated == int(newest.name[5:]) - int(before.name[5:])
    expected = (
        f"warning: checkpoint {newest.name} is damaged (optimizer.safetensors is not what was written (its digest "
        f"differs)): kept as damaged-{newest.name}, going on from {before.name}"
    )
    assert expected in path.with_suffix(".resumed").read_text()
    assert (path / "checkpoints" / f"damaged-{newest.name}").is_dir()


@pytest.mark.parametrize("size", [4_000, 11_000])
def test_a_full_disk_ends_a_run_in_one_line_and_harms_nothing(command, unbroken, tmp_path, size):
    path = tmp_path / "run"
    code, said = run(*command(path), log=tmp_path / "log", fault="full_disk", size=size)
    assert code == 2
    assert one_line(said).startswith("cannot write ")
    assert "File too large" in said
    assert corrupt(path) is None
    assert resume(path, unbroken, command(path))[0] is None


def test_a_folder_is_one_runs_at_a_time(command, unbroken, tmp_path):
    path = tmp_path / "run"
    first = Program(*command(path), log=tmp_path / "log")
    assert first.wait_for_lines(path / "metrics.jsonl", 1)
    os.kill(first.pid, signal.SIGSTOP)
    expected = f"error: {path} is in use by process {first.pid}: wait for it to end, or choose another --out\n"
    for second in (["run", "--resume", path], command(path), [*command(path), "--overwrite"]):
        assert run(*second, log=tmp_path / "second") == (2, expected)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert difference(path, unbroken) is None
    assert not (path / "run.lock").exists()


def test_a_clock_that_jumps_changes_nothing(command, unbroken, tmp_path):
    code, said = run(*command(tmp_path / "run"), log=tmp_path / "log", fault="jumping_clock")
    assert code == 0, said
    assert difference(tmp_path / "run", unbroken) is None


def test_a_reward_that_sleeps_for_ever_ends_the_run_and_costs_no_more(command, unbroken, tmp_path):
    path = tmp_path / "run"
    limited = command(path, judge_seconds=4)
    code, said = run(*limited, log=tmp_path / "log", fault="bad_reward", kind="sleeps for ever", call=9)
    assert code == 2
    assert one_line(said).startswith("reward Dual has not answered within 4 s on Sample(question='Say a digit")
    assert resume(path, unbroken, limited)[0] is None


def test_losses_that_stay_nan_end_the_run_with_the_state_that_did_it(command, unbroken, tmp_path):
    path = tmp_path / "run"
    given = command(path, optim__patience=3)
    code, said = run(*given, log=tmp_path / "log", fault="not_finite", first=5, last=10**9)
    assert code == 2
    assert "3 steps in a row had no finite loss or gradient (the loss is nan); the state is saved in" in one_line(said)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [("skipped_updates" in row) for row in rows[-4:]] == [False, True, True, True]
    (saved,) = (path / "diverged").iterdir()
    assert saved.name == f"step-{len(rows):06d}"
    assert resume(path, unbroken, given)[0] is None
