"""A run made by several ranks is the run that one makes, and outlives none of them without saying so."""

import json
import os
import shutil
import signal

import psutil
import pytest
from dlr_process import Program, run
from misbehaving import Toy, toy_run
from survival import one_line

from dlr_core import PluginHost
from dlr_core.config import resolve
from dlr_core.pipeline import build_trainer

STEPS = 20
SIZES = (1, 2, 4)
OWN = {"seconds", "progress", "reduced_bytes", "gathered_bytes", "question_cache_hits", "question_cache_mb"}
SHARED = {"decoded", "scored", "backpropagated", "logits", "scorer_flops"}
COST = SHARED | {"prefilled", "main_flops", "assistant_flops"}


def ranked(size, *arguments, log):
    """Exit codes and outputs of a command that so many ranks were launched with."""
    meeting = log.with_suffix(".meeting")
    programs = [
        Program(*arguments, log=log.with_suffix(f".{rank}"), fault="ranked", rank=rank, size=size, meeting=str(meeting))
        for rank in range(size)
    ]
    return [program.wait(120) for program in programs], [program.said() for program in programs]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


NORM = 10
"""How many times further apart than all else gradients' norms may be: of 50, made of terms that cancel."""


def apart(one, other):
    """The largest difference of any metric but clocks and costs, and where it is; what is no number must be the same.

    Of numbers above one it is the relative difference. Losses are taken as they are.
    """
    worst = (0.0, "")
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for was, now in zip(one, other, strict=True):
        assert set(was) - OWN == set(now) - OWN
        for key in set(was) - OWN - COST:
            if isinstance(was[key], int | float):
                unit = 1.0 if key == "loss" else max(1.0, abs(was[key])) * (NORM if key == "grad_norm" else 1)
                worst = max(worst, (abs(was[key] - now[key]) / unit, f"{key} of step {was['step']}"))
            else:
                assert was[key] == now[key], key
    return worst


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def runs(tiny_model, folder):
    """The same run by 1, 2 and 4 ranks, in which everything that draws, couples questions or learns is in use."""
    made, outputs = {}, {}
    for size in SIZES:
        made[size] = folder / f"of-{size}"
        settings = {"batch__questions": 4, "replay__chains": 6, "checkpoint__keep": 9}
        command = toy_run(tiny_model, made[size], STEPS, **settings)
        codes, outputs[size] = ranked(size, *command, log=folder / f"{size}.log")
        assert codes == [0] * size, outputs[size]
    return made, outputs


@pytest.mark.parametrize("size", SIZES[1:])
def test_ranks_make_the_run_that_one_makes(runs, size):
    one, several = rows(runs[0][1]), rows(runs[0][size])
    assert len(one) == STEPS + 1  # and the warm start
    assert any(row.get("replay_size", 0) > 4 for row in one)
    assert any(row.get("frontier", 0) > 0 for row in one)
    difference, where = apart(one, several)
    assert difference < 1e-4, where


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_ranks_together_compute_what_one_does_but_for_prompts_prefilled_again(runs, size):
    for one, several in zip(rows(runs[0][1]), rows(runs[0][size]), strict=True):
        assert {key: one[key] for key in SHARED} == {key: several[key] for key in SHARED}
    prefilled, again = (sum(row["prefilled"] for row in rows(runs[0][ranks])) for ranks in (1, size))
    assert prefilled <= again <= size * prefilled


def test_the_first_rank_alone_writes_and_speaks(runs):
    made, outputs = runs
    assert "ranks" not in json.loads((made[1] / "manifest.json").read_text())
    assert json.loads((made[4] / "manifest.json").read_text())["ranks"] == 4
    assert f"run folder: {made[4]}" in outputs[4][0].replace("\n", "")
    assert outputs[4][1:] == [""] * 3
    assert not OWN & {"reduced_bytes"} & set(rows(made[1])[0])


def test_every_reduction_is_of_all_that_is_trained(runs, tiny_model, folder):
    """Bytes = 4 per parameter of assistant, objective and chart for each update, and of the scorer for each of its."""
    config = json.loads((runs[0][2] / "manifest.json").read_text())["config"]
    host = PluginHost.from_entry_points()
    host.add(Toy(), "toy")
    trainer = build_trainer(resolve(config, host), host)
    learner = sum(parameter.numel() for parameter in trainer.parameters)
    chart = sum(parameter.numel() for parameter in trainer.space.trainable())
    scorer = sum(parameter.numel() for parameter in trainer.scorer.parameters())
    assert 0 < chart < learner
    assert scorer
    for size in SIZES[1:]:
        for row in rows(runs[0][size]):
            updates, rollouts = 1, row["decodes"] // (4 * 2)
            if row["phase"] == "rl":
                updates = config["batch"]["epochs"] + ("replay_nll" in row) * (config["replay"]["updates"] - 1)
            passes = rollouts * trainer.scorer.options.passes
            assert row["reduced_bytes"] == 4 * (updates * learner + passes * scorer)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(runs, tmp_path, before, after):
    path = shutil.copytree(runs[0][before], tmp_path / "run")
    for checkpoint in (path / "checkpoints").iterdir():
        if int(checkpoint.name[5:]) > 16:
            shutil.rmtree(checkpoint)
    codes, said = ranked(after, "run", "--resume", path, log=tmp_path / "log")
    assert codes == [0] * after, said
    assert json.loads((path / "manifest.json").read_text())["resumed"][-1]["step"] == 16
    difference, where = apart(rows(runs[0][1]), rows(path))
    assert difference < 1e-4, where


def test_a_killed_rank_ends_the_run_with_its_name_and_a_checkpoint_that_resumes(tiny_model, tmp_path):
    path = tmp_path / "run"
    command = toy_run(tiny_model, path, 100_000, **{"batch__questions": 2})
    command[command.index("--env") + 1] = "dlr/ChainSum-v0"
    program = Program(*command, "--set", "task.pool=40", "--ranks", 2, log=tmp_path / "log")
    assert program.wait_for_lines(path / "metrics.jsonl", 5, 120)
    (victim,) = [p for p in psutil.Process(program.pid).children() if p.environ().get("RANK") == "1"]
    os.kill(victim.pid, signal.SIGKILL)
    assert program.wait(30) == 3, program.said()
    assert one_line(program.said()) == (
        "rank 1 of 2 was ended by SIGKILL: the run has stopped; "
        f"go on from its newest checkpoint with: dlr run --resume {path} --ranks 2"
    )
    logged = len(rows(path))
    code, said = run("run", "--resume", path, "--steps", logged + 1, log=tmp_path / "resumed")
    assert code == 0, said
    assert json.loads((path / "manifest.json").read_text())["resumed"][-1]["step"] >= logged - 2
    assert [row["step"] for row in rows(path)] == list(range(1, logged + 3))


def test_ctrl_c_ends_all_ranks_after_the_step(tiny_model, tmp_path):
    """One rank is told, all of them stop."""
    path, meeting = tmp_path / "run", str(tmp_path / "meeting")
    command = toy_run(tiny_model, path, 100_000, **{"batch__questions": 2})
    programs = [
        Program(*command, log=tmp_path / f"log{rank}", fault="ranked", rank=rank, size=2, meeting=meeting)
        for rank in range(2)
    ]
    assert programs[0].wait_for_lines(path / "metrics.jsonl", 3, 120)
    os.kill(programs[1].pid, signal.SIGINT)
    assert [program.wait(60) for program in programs] == [130, 0], programs[0].said()
    assert f"saved; go on with: dlr run --resume {path} --ranks 2" in programs[0].said().replace("\n", "")
    assert (path / "checkpoints" / f"step-{len(rows(path)):06d}").is_dir()
