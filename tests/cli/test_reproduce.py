"""``dlr reproduce``: the same bits, or where they part."""

import json
import shutil

import pytest
from dlr_cli.app import app
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dlr_core.schedule import CLOCKS

SMALL = {
    "task.pool": 40, "decoder.max_new_tokens": 4, "space.num_latents": 2, "space.latent_dim": 4,
    "assistant.width": 16, "assistant.layers": 1, "batch.questions": 2, "batch.samples": 2,
    "replay.chains": 4, "replay.search": 2, "replay.fresh": 1, "eval.questions": 0,
    "optim.entropy": 0.01,
}  # fmt: skip
"""The tiny model is hardly ever right: without the entropy's gradient nothing might be learned, whatever the rate."""


class Clock:
    """A second passes whenever somebody looks."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


def train(tiny_model, out, *arguments):
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = ["run", "--main-model", tiny_model, "--out", out, *settings, *arguments]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A run of four steps."""
    path = tmp_path_factory.mktemp("made") / "run"
    train(tiny_model, path, "--steps", 4, "--seed", 3)
    return path


@pytest.fixture
def copy(made, tmp_path):
    """The run, to be spoilt."""
    return shutil.copytree(made, tmp_path / "run")


def rewrite(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_manifest_says_what_it_takes_to_make_the_run_again(made):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["config"]["seed"] == 3
    assert manifest["config"]["optim"]["warmup"] == 5  # defaults are spelled out
    assert {"torch", "transformers", "tokenizers", "numpy", "reasoning-gym"} <= set(manifest["packages"])
    assert len(manifest["main_model"]["digest_before"]) == 64
    assert manifest["main_model"]["dtype"] == "float32"
    assert set(manifest["plugins"]) >= {"builtin", "envs"}
    assert manifest["machine"]["threads"] >= 1
    assert manifest["code"] is None or len(manifest["code"]["commit"]) == 40


def test_a_run_is_made_again_bit_for_bit(dlr, made, tmp_path):
    rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert all(row["grad_norm"] > 0 for row in rows)
    code, out, err = dlr("reproduce", made, "--out", tmp_path / "again")
    assert (code, err) == (0, "")
    assert f"all 4 steps agree with {made} bit for bit, and so do the weights after them" in out.replace("\n", "")
    code, out, err = dlr("reproduce", made, "--steps", 2, "--out", tmp_path / "part", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["identical"], found["steps"], found["weights"]) == (True, 2, "not compared")
    assert len((tmp_path / "part" / "metrics.jsonl").read_text().splitlines()) == 2
    left = json.loads((tmp_path / "part" / "manifest.json").read_text())
    assert left["reproduces"]["run"] == str(made)


def test_a_run_limited_by_time_alone_is_made_again_on_another_clock(dlr, tiny_model, tmp_path, monkeypatch):
    """Its learning rates follow the clock; here every step takes one second of six, there what it takes."""
    with monkeypatch.context() as patched:
        patched.setattr("dlr_core.trainer.time", Clock())
        patched.setitem(CLOCKS, "wall", Clock().perf_counter)
        train(tiny_model, tmp_path / "timed", "--minutes", 0.1, "--set", "optim.decay=0.8", "--set", "optim.warmup=0")
    rows = [json.loads(line) for line in (tmp_path / "timed" / "metrics.jsonl").read_text().splitlines()]
    assert [row["progress"] for row in rows] == [n / 6 for n in range(6)]
    assert all(row["grad_norm"] > 0 for row in rows)
    code, out, err = dlr("reproduce", tmp_path / "timed", "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 6
    assert (tmp_path / "timed-reproduced" / "manifest.json").is_file()
    for row in rows:  # as runs were logged before: the clock's reading is the sum of the seconds
        del row["progress"]
    (tmp_path / "timed" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = dlr("reproduce", tmp_path / "timed", "--overwrite", "--json")
    assert code == 0, err


def test_the_first_difference_is_named_with_both_values(dlr, copy, tmp_path):
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    true = rows[2]["grad_norm"]
    rows[2]["grad_norm"] += 1e-12
    rows[2]["seconds"] += 100.0
    rows[3]["reward"] += 1.0
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = dlr("reproduce", copy, "--out", tmp_path / "again", "--json")
    assert code == 1
    assert json.loads(out)["difference"] == {
        "step": 3, "metric": "grad_norm", "was": rows[2]["grad_norm"], "now": true,
    }  # fmt: skip
    code, out, _ = dlr("reproduce", copy, "--out", tmp_path / "again", "--overwrite")
    assert code == 1
    line = f"differs from {copy} at step 3, grad_norm: was {rows[2]['grad_norm']}, is {true}"
    assert line in out.splitlines()


def test_another_seed_differs_at_once(dlr, copy, tmp_path):
    rewrite(copy, lambda manifest: manifest["config"].update(seed=4))
    code, out, _ = dlr("reproduce", copy, "--out", tmp_path / "again", "--json")
    assert code == 1
    assert json.loads(out)["difference"]["step"] == 1


def test_other_weights_after_the_same_metrics_are_a_difference(dlr, copy, tmp_path):
    file = copy / "checkpoints" / "step-000004" / "weights.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, file)
    code, out, _ = dlr("reproduce", copy, "--out", tmp_path / "again")
    assert code == 1
    assert out.splitlines()[-1].endswith(f"but the weights after them differ, first in {name}")


def test_what_was_otherwise_is_warned_of(dlr, copy, tmp_path):
    def spoil(manifest):
        manifest["packages"]["torch"] = "1.0"
        manifest["code"] = {"commit": "c" * 40, "changes": None}
        manifest["main_model"]["digest_before"] = "d" * 64
        manifest["machine"]["threads"] = 99
        manifest["resumed"] = [{"step": 2, "dlr": "0.0.1"}]

    rewrite(copy, spoil)
    code, _, err = dlr("reproduce", copy, "--steps", 1, "--out", tmp_path / "again", "--json")
    assert code == 0
    lines = err.splitlines()
    assert any(line.startswith("warning: packages: torch was 1.0, is ") for line in lines)
    assert any(line.startswith(f"warning: main model digest was {'d' * 64}, is ") for line in lines)
    assert any(line.startswith("warning: machine: threads was 99, is ") for line in lines)
    assert any(line.startswith("warning: code: ") for line in lines)
    assert any(line.startswith("warning: resumed after step 2: dlr was 0.0.1, is ") for line in lines)


def test_what_cannot_be_made_again_is_one_line_and_exit_code_2(dlr, copy, tmp_path):
    expected = f"error: --steps: expected 1 to 4, which {copy} has made, got 9\n"
    assert dlr("reproduce", copy, "--steps", 9) == (2, "", expected)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("keep")
    code, out, err = dlr("reproduce", copy, "--out", tmp_path / "taken")
    assert (code, out, err.count("\n")) == (2, "", 1)
    (copy / "metrics.jsonl").write_text("")
    code, out, err = dlr("reproduce", copy)
    assert (code, out, err) == (2, "", f"error: {copy}: expected metrics of step 1, 2, …, got 0 rows\n")
    rewrite(copy, lambda manifest: manifest.update(baseline={}))
    assert dlr("reproduce", copy) == (2, "", f"error: {copy} holds a baseline; only runs are made again\n")


def test_a_resumed_run_says_so(dlr, tiny_model, tmp_path):
    train(tiny_model, tmp_path / "run", "--steps", 2)
    code, _, err = dlr("run", "--resume", tmp_path / "run", "--steps", 4)
    assert code == 0, err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert [entry["step"] for entry in manifest["resumed"]] == [2]
    assert "torch" in manifest["resumed"][0]["packages"]
    code, out, err = dlr("reproduce", tmp_path / "run", "--json")
    assert code == 0, err
    assert json.loads(out)["identical"]
