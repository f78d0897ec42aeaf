"""Loggers of whole runs: chosen by name, told how a run ends, able to end it, unable to lose it."""

import json

import dlr_cli.session
import pytest
from dlr_cli.settings import gather

from dlr_core import API_VERSION, PluginHost, hookimpl
from dlr_core.pipeline import DLRPipeline

SMALL = {
    "task.pool": 40, "decoder.max_new_tokens": 3, "space.num_latents": 2, "space.latent_dim": 4,
    "assistant.width": 16, "assistant.layers": 1, "batch.questions": 2, "batch.samples": 2, "replay.search": 0,
    "eval.questions": 4, "eval.prompt_questions": 3, "checkpoint.every": 100,
}  # fmt: skip


class Told:
    """Remembers every call; does at a chosen step what the test wants."""

    calls: list = []
    at, act = None, None

    def begin(self, run):
        self.calls.append(("begin", run))
        assert run.folder.is_dir()

    def step(self, metrics):
        self.calls.append(("step", metrics))
        return type(self).act() if metrics["step"] == self.at else None

    def end(self, summary):
        self.calls.append(("end", summary))


class Offer:
    DLR_API_VERSION = API_VERSION

    @hookimpl
    def dlr_register_logger(self, register):
        register("told", Told)


@pytest.fixture
def told(monkeypatch):
    """The class of the logger `told`, registered with every host."""
    made = PluginHost.from_entry_points

    def with_told():
        host = made()
        host.add(Offer(), "offer")
        return host

    monkeypatch.setattr(PluginHost, "from_entry_points", with_told)
    for name, value in (("calls", []), ("at", None), ("act", None)):
        monkeypatch.setattr(Told, name, value)
    return Told


def command(tiny_model, out, *more, **changes):
    chosen = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    flags = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    return ["run", "--main-model", tiny_model, "--out", out, *flags, *more]


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def manifest(path):
    return json.loads((path / "manifest.json").read_text())


def test_a_logger_is_told_of_the_whole_run(dlr, told, tiny_model, tmp_path):
    code, out, err = dlr(*command(tiny_model, tmp_path / "run", "--steps", 2, "--logger", "told", "--json"))
    assert code == 0, err
    assert [name for name, _ in told.calls] == ["begin", "step", "step", "end"]
    (_, run), (_, one), (_, two), (_, end) = told.calls
    saved = manifest(tmp_path / "run")
    assert run.config == saved["config"]
    assert [logger["name"] for logger in run.config["loggers"]] == ["tensorboard", "told"]
    assert run.main_model == saved["main_model"]["digest_before"]
    assert run.parameters == saved["parameters"]
    assert list(run.earlier) == []
    assert all(sum(row.pop("phases").values()) > 0 for row in (one, two))
    assert [one, two] == rows_of(tmp_path / "run")
    assert (end.outcome, end.steps, end.reason) == ("finished", 2, None)
    assert end.cost == saved["cost"]
    assert end.table["rows"] == json.loads(out)["rows"]
    assert (tmp_path / "run" / "tensorboard").is_dir()


def test_a_run_without_loggers_logs_what_every_run_does(dlr, told, tiny_model, tmp_path):
    for name, loggers in (("with", '["told", "tensorboard"]'), ("without", "[]")):
        code, out, err = dlr(*command(tiny_model, tmp_path / name, "--steps", 2, loggers=loggers))
        assert code == 0, err
        assert ("tensorboard --logdir" in out) == (name == "with")
    assert not (tmp_path / "without" / "tensorboard").exists()
    first, second = (
        [{key: value for key, value in row.items() if key != "seconds"} for row in rows_of(tmp_path / name)]
        for name in ("with", "without")
    )
    assert first == second


def test_a_logger_that_raises_costs_one_line_and_not_the_run(dlr, told, tiny_model, tmp_path):
    told.at, told.act = 1, lambda: 1 / 0
    code, out, err = dlr(*command(tiny_model, tmp_path / "run", "--steps", 3, "--logger", "told", "--json"))
    assert code == 0
    assert json.loads(out)["n"] == 4
    warnings = [line for line in err.splitlines() if line.startswith("warning:")]
    assert warnings == [
        "warning: logger 'told' failed in step 1: ZeroDivisionError: division by zero; the run goes on without it"
    ]
    assert [name for name, _ in told.calls] == ["begin", "step"]
    assert len(rows_of(tmp_path / "run")) == 3
    assert manifest(tmp_path / "run")["failed_loggers"] == {"told": "in step 1: ZeroDivisionError: division by zero"}


def test_a_logger_may_end_a_run_which_then_has_its_table(dlr, told, tiny_model, tmp_path):
    told.at, told.act = 2, lambda: "enough is enough"
    code, out, err = dlr(*command(tiny_model, tmp_path / "run", "--steps", 50, "--logger", "told"))
    assert code == 0, err
    assert "stopped by told: enough is enough" in out
    assert len(rows_of(tmp_path / "run")) == 2
    saved = manifest(tmp_path / "run")
    assert saved["training"]["steps"] == 2
    assert saved["training"]["stopped"] == "told: enough is enough"
    assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()
    assert (tmp_path / "run" / "eval.json").is_file()
    end = told.calls[-1][1]
    assert (end.outcome, end.reason, end.table["n"]) == ("stopped", "told: enough is enough", 4)


def test_early_stop_ends_a_run_by_name_and_options(dlr, tiny_model, tmp_path):
    loggers = '[{name="early-stop", metric="step", mode="min", patience=2, window=1}]'
    code, out, err = dlr(*command(tiny_model, tmp_path / "run", "--steps", 50, loggers=loggers))
    assert code == 0, err
    assert "stopped by early-stop: step has not improved for 2 steps (best mean 1 at step 1)" in out
    assert len(rows_of(tmp_path / "run")) == 3


def test_a_resumed_run_tells_its_loggers_what_came_before(dlr, told, tiny_model, tmp_path):
    path = tmp_path / "run"
    assert dlr(*command(tiny_model, path, "--steps", 2, "--logger", "told"))[0] == 0
    told.calls.clear()
    code, _, err = dlr("run", "--resume", path, "--steps", 3)
    assert code == 0, err
    (_, run), (_, row), (_, end) = told.calls
    assert list(run.earlier) == rows_of(path)[:2]
    assert row["step"] == 3
    assert end.steps == 3


def test_loggers_hear_of_interrupts_and_errors(dlr, told, tiny_model, tmp_path, monkeypatch):
    import os
    import signal

    told.at, told.act = 1, lambda: os.kill(os.getpid(), signal.SIGINT)
    code, _, _ = dlr(*command(tiny_model, tmp_path / "stopped", "--steps", 9, "--logger", "told"))
    assert code == 130
    assert (told.calls[-1][1].outcome, told.calls[-1][1].table) == ("interrupted", None)
    told.at = None

    def fails(*parts, **more):
        raise OSError("no space left")

    monkeypatch.setattr(dlr_cli.session, "control_table", fails)
    code, _, err = dlr(*command(tiny_model, tmp_path / "failed", "--steps", 1, "--logger", "told"))
    assert (code, err.splitlines()[-1]) == (2, "error: no space left")
    end = told.calls[-1][1]
    assert (end.outcome, end.reason, end.steps) == ("failed", "OSError: no space left", 1)


def test_a_trained_run_is_loaded_where_its_logger_is_not_installed(dlr, told, tiny_model, tmp_path, monkeypatch):
    assert dlr(*command(tiny_model, tmp_path / "run", "--steps", 1, "--logger", "told"))[0] == 0
    monkeypatch.undo()
    assert DLRPipeline.from_run(tmp_path / "run")("How much is 1 + 2?") is not None


def test_a_misspelt_logger_is_one_line(dlr):
    expected = "error: no logger named 'tensorbord'; did you mean 'tensorboard'?\n"
    assert dlr("run", "--logger", "tensorbord") == (2, "", expected)
    assert dlr("run", "--set", 'loggers=["tensorbord"]') == (2, "", expected)


def test_the_option_adds_to_what_is_set(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('loggers = ["csv"]\n')

    def listed(*names, config=None, assignments=()):
        return gather(config, {"logger": list(names)}, list(assignments), None, None, None).get("loggers")

    assert listed() is None
    assert listed("a", "b", "a") == ["tensorboard", "a", "b"]
    assert listed("a", config=file) == ["csv", "a"]
    assert listed("a", assignments=["loggers=[]"]) == []
