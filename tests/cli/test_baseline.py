"""``dlr baseline`` and its row in the control table."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft")
SMALL = ("--set", "task.pool=40", "--set", "batch.questions=2", "--set", "batch.samples=2", "--set",
         "space.num_latents=3", "--set", "space.latent_dim=4", "--set", "space.chart=random", "--set",
         "eval.questions=5", "--set", "eval.prompt_questions=4", "--set", "decoder.max_new_tokens=4")  # fmt: skip
QUICK = ("--set", "assistant.width=16", "--set", "assistant.layers=1")


def once(tiny_model, folder, *command):
    """Run the program in a process of its own."""
    program = str(Path(sys.executable).with_name("dlr"))
    program = [program] if Path(program).is_file() else [sys.executable, "-m", "dlr_cli.app"]
    return [*program, *map(str, command), "--main-model", str(tiny_model), "--out", str(folder), *SMALL]


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """A run and a prefix beside it."""
    folder = tmp_path_factory.mktemp("rivals")
    for command in (
        [*once(tiny_model, folder / "run", "run", "--steps", 1, "--set", "eval.questions=0"), *QUICK],
        [*once(tiny_model, folder / "prefix0", "baseline", "prefix", "--steps", 4, "--json")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_baseline_leaves_its_settings_its_account_and_no_pickle(trained):
    folder, printed = trained
    manifest = json.loads((folder / "prefix0" / "manifest.json").read_text())
    assert manifest["gold_answers_seen"] is True
    assert manifest["main_model"]["digest_before"] == manifest["main_model"]["digest_after"]
    assert manifest["baseline"]["options"]["num_virtual_tokens"] == 3
    assert manifest["baseline"]["prompt"]
    assert manifest["training"]["steps"] == 4
    assert manifest["cost"]["flops"] > 0
    assert manifest["validation"]["n"] == 4
    assert printed["baseline"] == manifest["baseline"]
    rows = [json.loads(line) for line in (folder / "prefix0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    suffixes = {path.suffix for path in (folder / "prefix0" / "adapter").iterdir()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pkl"}


def test_a_baseline_is_a_row_over_the_same_questions_with_its_paired_difference(dlr, trained):
    folder, printed = trained
    code, out, err = dlr("eval", folder / "run", "--baseline", folder / "prefix0", "--n", 6, "--json")
    assert code == 0, err
    table = json.loads(out)
    row = table["rows"]["prefix0"]
    assert list(table["rows"])[-2:] == ["prefix0", "trained"]
    assert row["label"] == "prefix tuning (gold, supervised)"
    assert row["prompt"] == printed["baseline"]["prompt"]
    assert row["latents"] == 3
    assert row["gflops"] > 0
    gap = table["rows"]["trained"]["accuracy"] - row["accuracy"]
    assert table["paired"]["prefix0"]["difference"] == pytest.approx(gap)
    code, out, _ = dlr("eval", folder / "run", folder / "run", "--baseline", folder / "prefix0", "--n", 6, "--markdown")
    assert code == 0
    assert "| prefix tuning (gold, supervised) |" in out


def test_two_baselines_of_one_method_have_rows_of_their_own(dlr, trained, tmp_path):
    folder, _ = trained
    (tmp_path / "prefix1").symlink_to(folder / "prefix0")
    (tmp_path / "copy").mkdir()
    for file in (folder / "prefix0").iterdir():
        (tmp_path / "copy" / file.name).symlink_to(file)
    command = ["eval", folder / "run", "--baseline", folder / "prefix0", "--baseline", tmp_path / "copy", "--n", 4]
    code, out, err = dlr(*command, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [rows[name]["label"][-8:] for name in ("prefix0", "copy")] == [" prefix0", "sed) copy"[-8:]]
    assert rows["copy"]["accuracy"] == rows["prefix0"]["accuracy"]
    code, _, err = dlr("eval", folder / "run", "--baseline", folder / "prefix0", "--baseline", tmp_path / "prefix1")
    assert (code, err) == (2, "error: --baseline: 'prefix0' would name two rows; rename the folder\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{run}", "--baseline", "{run}"], "error: {run} holds no baseline; train one with: dlr baseline prefix --out"),
        (["{prefix}"], "error: {prefix} holds a baseline, not a run: dlr eval RUN --baseline {prefix}"),
        (["{run}", "--saved", "--baseline", "{prefix}"], "error: --baseline must be measured on the same questions"),
        (["--retention", "{run}", "--baseline", "{prefix}"], "error: --retention takes one run"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(dlr, trained, arguments, expected):
    folder, _ = trained
    names = {"run": folder / "run", "prefix": folder / "prefix0"}
    code, out, err = dlr("eval", *(text.format(**names) for text in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(expected.format(**names))
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("main_model", "digest_before", "0" * 64), "was trained on another main model (digest 000000000000…)"),
        (("config", "env", "dlr/Products-v0"), "was trained with env dlr/Products-v0, the run with dlr/ChainSum-v0"),
    ],
)
def test_a_baseline_of_another_model_or_task_is_refused(dlr, trained, tmp_path, change, expected):
    folder, _ = trained
    copy = tmp_path / "other"
    copy.mkdir()
    manifest = json.loads((folder / "prefix0" / "manifest.json").read_text())
    manifest[change[0]][change[1]] = change[2]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "adapter").symlink_to(folder / "prefix0" / "adapter")
    code, out, err = dlr("eval", folder / "run", "--baseline", copy, "--n", 3, "--json")
    assert (code, out) == (2, "")
    assert err == f"error: the baseline in {copy} {expected}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prefx"], "error: no baseline named 'prefx'; did you mean 'prefix'?"),
        (
            ["prefix", "--set", "baseline.rl=1"],
            "error: baseline 'prefix': no option named 'rl'; did you mean 'lr'?",
        ),
        (
            ["prefix", "--env", "dlr/ChainSun-v0"],
            "error: no env named 'dlr/ChainSun-v0'; did you mean 'dlr/ChainSum-v0'?",
        ),
    ],
)
def test_what_a_user_got_wrong_is_one_line(dlr, arguments, expected):
    assert dlr("baseline", *arguments) == (2, "", expected + "\n")


def test_without_its_library_a_baseline_is_refused_before_anything_is_loaded(dlr, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    code, out, err = dlr("baseline", "prefix", "--out", tmp_path / "prefix", "--main-model", tmp_path / "nowhere")
    expected = "error: baseline 'prefix' needs peft: pip install 'deeplatent-reasoning[baselines]'\n"
    assert (code, out, err) == (2, "", expected)


def test_an_interrupt_saves_what_was_learned(tiny_model, trained, tmp_path, dlr):
    path = tmp_path / "prefix"
    command = [*once(tiny_model, path, "baseline", "prefix", "--steps", 100000, "--prompt", "Result:")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    for line in process.stdout:
        if "step 1" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    steps = json.loads((path / "manifest.json").read_text())["training"]["steps"]
    assert 1 <= steps < 100000
    code, out, err = dlr("eval", trained[0] / "run", "--baseline", path, "--n", 3, "--json")
    assert code == 0, err
    assert "prefix" in json.loads(out)["rows"]
