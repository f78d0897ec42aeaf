import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlr_core.host import KINDS

ROWS = ["plain", "anchor", "best_prompt", "random", "mean", "shuffled", "trained"]
SMALL = {
    "task.pool": 40,
    "decoder.max_new_tokens": 4,
    "space.num_latents": 2,
    "space.latent_dim": 4,
    "space.chart": "random",
    "assistant.width": 16,
    "assistant.layers": 1,
    "batch.questions": 2,
    "batch.samples": 2,
    "eval.questions": 5,
    "eval.prompt_questions": 3,
}


def settings(**changes):
    chosen = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def finished_run(tiny_model, tmp_path_factory):
    """A run folder made by the installed program, and what it printed."""
    path = tmp_path_factory.mktemp("runs") / "done"
    command = ["run", "--main-model", tiny_model, "--steps", 2, "--out", path, "--json", *settings()]
    done = program(*command)
    assert done.returncode == 0, done.stderr
    return path, done


def arguments_of(*arguments):
    return [str(Path(sys.executable).with_name("dlr")), *map(str, arguments)]


def program(*arguments, **options):
    """Run the installed script in a process of its own."""
    options = {"capture_output": True, "text": True, "timeout": 120, "check": False, **options}
    return subprocess.run(arguments_of(*arguments), **options)


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--reward", "dule"], "error: no reward named 'dule'; did you mean 'dual'?"),
        (["run", "--assistant", "smallgpt"], "error: no assistant named 'smallgpt'; did you mean 'small-gpt'?"),
        (["run", "--env", "dlr/ChainSun-v0"], "error: no env named 'dlr/ChainSun-v0'; did you mean 'dlr/ChainSum-v0'?"),
        (
            ["run", "--set", "batch.question=3"],
            "error: config: no option named 'batch.question'; did you mean 'batch.questions'?",
        ),
        (["run", "--set", "steps"], "error: --set: expected key=value, got 'steps'"),
        (["list", "rewards"], "error: no kind named 'rewards'; did you mean 'reward'?"),
        (["eval", "nowhere", "--split", "train"], "error: --split: expected test or validation, got 'train'"),
        (
            ["run", "--estimator", "pathwise"],
            "error: estimator 'pathwise' needs sampled completions: set decoder.temperature above 0, "
            "or use pathwise_greedy or score",
        ),
    ],
)
def test_what_a_user_got_wrong_is_one_line_and_exit_code_2(dlr, arguments, expected):
    assert dlr(*arguments) == (2, "", expected + "\n")


def test_a_misspelt_reward_is_refused_by_the_installed_program_with_one_line():
    done = program("run", "--reward", "exact_macth")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no reward named 'exact_macth'; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("assignment", "path", "got"),
    [
        ("batch.questions=many", "batch.questions", "'many'"),
        ("batch.questions=0", "batch.questions", "0"),
        ("optim.lr=-1.0", "optim.lr", "-1.0"),
        ("steps=1.5", "steps", "1.5"),
        ("space.num_latents=true.5", "num_latents", "'true.5'"),
    ],
)
def test_a_setting_of_the_wrong_type_is_named_with_what_was_given(dlr, assignment, path, got):
    code, out, err = dlr("run", "--set", assignment)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert f"{path}: Input should be" in err
    assert err.endswith(f"got {got}\n")
    assert err.count("\n") == 1


def test_every_problem_is_named_on_a_line_of_its_own(dlr):
    code, _, err = dlr("run", "--reward", "dule", "--set", "assistant.widht=3", "--env", "dlr/Nope-v9")
    assert code == 2
    assert [line.startswith("error: ") for line in err.splitlines()] == [True] * 3
    assert "did you mean 'width'?" in err


def test_a_missing_model_folder_is_named_and_no_run_folder_stays_behind(dlr, tmp_path):
    out = tmp_path / "run"
    code, _, err = dlr("run", "--main-model", tmp_path / "nowhere", "--out", out, *settings())
    assert code == 2
    assert err.startswith(f"error: no main model at '{tmp_path}/nowhere': expected")
    assert err.count("\n") == 1
    assert not out.exists()


def test_an_interrupt_before_training_leaves_no_half_made_run(dlr, tiny_model, tmp_path, monkeypatch):
    def interrupted(*parts):
        raise KeyboardInterrupt

    import dlr_cli.session

    monkeypatch.setattr(dlr_cli.session, "build_trainer", interrupted)
    code, _, err = dlr("run", "--main-model", tiny_model, "--out", tmp_path / "run", *settings())
    assert code == 130
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_start_replaces_nothing(dlr, finished_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run[0], copy)
    code, _, _ = dlr("run", "--main-model", tmp_path / "nowhere", "--out", copy, "--overwrite", *settings())
    assert code == 2
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 2
    assert list((copy / "checkpoints").iterdir())


@pytest.mark.parametrize("text", ["steps = = 3", "\x00", None])
def test_a_bad_config_file_is_named(dlr, tmp_path, text):
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_text(text)
    code, out, err = dlr("run", "--config", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: cannot read the config file {path}: ")
    assert err.count("\n") == 1


def test_a_folder_that_holds_something_is_left_alone(dlr, tiny_model, tmp_path):
    (tmp_path / "precious").write_text("keep")
    for flag in ([], ["--overwrite"]):
        code, _, err = dlr("run", "--main-model", tiny_model, "--out", tmp_path, *flag, *settings())
        assert code == 2
        assert err.startswith(f"error: {tmp_path} is not ")
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    code, _, err = dlr("run", "--main-model", tiny_model, "--out", tmp_path / "precious", *settings())
    assert code == 2
    assert err == f"error: cannot write the run folder {tmp_path}/precious: Not a directory\n"


@pytest.mark.parametrize("command", [["run", "--resume"], ["eval"]])
def test_a_folder_that_is_no_run_is_refused(dlr, tmp_path, command):
    for path in (tmp_path, tmp_path / "nowhere"):
        code, out, err = dlr(*command, path)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {path} is not a run folder: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


# ---- what needs no model -------------------------------------------------------------------------------------------


def test_list_as_json_names_every_component_with_its_plugin_and_what_it_is(dlr):
    code, out, err = dlr("list", "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert list(listed) == list(KINDS)
    for rows in listed.values():
        assert rows
        assert rows == sorted(rows, key=lambda row: row["name"])
        assert all(set(row) == {"name", "plugin", "summary"} and all(row.values()) for row in rows)
    assert ("dual", "builtin") in [(row["name"], row["plugin"]) for row in listed["reward"]]
    code, out, _ = dlr("list", "env", "--json")
    assert list(json.loads(out)) == ["env"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from dlr_cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as left:\n    assert not left.code\n"
        "print(sorted({'torch', 'transformers', 'gymnasium', 'reasoning_gym', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("run", "eval", "list", "space"):
        assert f"\n  {command} " in done.stdout


def test_a_dry_run_prints_the_settings_and_makes_no_folder(dlr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLR_CACHE", str(tmp_path / "nothing"))
    config = tmp_path / "run.toml"
    config.write_text('seed = 3\nreward = "format"\n[batch]\nquestions = 5\nsamples = 6\n')
    flags = ["--reward", "correctness", "--steps", 7, "--set", "batch.samples=9", "--set", "space.radius=0.5"]
    code, out, err = dlr("run", "--config", config, *flags, "--dry-run")
    assert (code, err) == (0, "memory: no plan: main model not here yet\n")
    shown = json.loads(out)
    assert shown["seed"] == 3
    assert shown["batch"]["questions"] == 5
    assert shown["batch"]["samples"] == 9
    assert shown["reward"] == {"name": "correctness"}
    assert shown["space"]["radius"] == 0.5
    assert (shown["steps"], shown["minutes"]) == (7, None)
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_the_printed_settings_are_a_valid_config(dlr, tmp_path):
    _, out, _ = dlr("run", "--steps", 7, "--seed", 5, "--dry-run")
    from dlr_core import PluginHost
    from dlr_core.config import resolve

    assert json.loads(resolve(json.loads(out), PluginHost.from_entry_points()).model_dump_json()) == json.loads(out)


# ---- runs ----------------------------------------------------------------------------------------------------------


def check_table(table, questions):
    assert {"env", "n", "rows", "paired", "digest"} <= set(table)
    assert table["n"] == questions
    assert list(table["rows"]) == ROWS
    for name, row in table["rows"].items():
        assert {"accuracy", "ci", "format", "tokens"} <= set(row)
        assert len(row["ci"]) == 2
        assert ("prompt" in row) == (name == "best_prompt")
    assert set(table["paired"]) == set(ROWS) - {"trained"}
    assert all(set(gap) == {"difference", "ci"} for gap in table["paired"].values())
    assert table["digest"]["before"] == table["digest"]["after"]


def test_a_run_leaves_its_table_on_stdout_and_everything_in_its_folder(finished_run):
    path, done = finished_run
    table = json.loads(done.stdout)
    check_table(table, 5)
    left = json.loads((path / "eval.json").read_text())
    assert {key: value for key, value in left.items() if key != "per_question"} == table
    assert all(len(values) == table["n"] for values in left["per_question"].values())
    assert manifest_cost(path) == table["cost"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["main_model"]["digest_before"] == manifest["main_model"]["digest_after"]
    assert manifest["main_model"]["digest_before"] == table["digest"]["before"]
    assert manifest["gold_answers_seen"] is False
    assert manifest["training"]["steps"] == 2
    assert manifest["parameters"]["chart"] == 0
    assert manifest["parameters"]["assistant"] > 0
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    wanted = {"step", "phase", "reward", "correct", "format", "decodes", "tokens", "seconds"}
    assert all(wanted <= set(row) for row in rows)
    assert [row["decodes"] for row in rows] == [4, 4]
    traces = [json.loads(line) for line in (path / "traces.jsonl").read_text().splitlines()]
    assert traces
    assert {"question", "completion", "reward", "nearest_tokens"} <= set(traces[0])
    assert (path / "checkpoints" / "step-000002" / "weights.safetensors").is_file()
    assert list((path / "tensorboard").iterdir())


def manifest_cost(path):
    return json.loads((path / "manifest.json").read_text())["cost"]


def test_the_cost_of_a_run_is_the_sum_of_its_steps(finished_run):
    path, _ = finished_run
    cost = manifest_cost(path)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timings = [json.loads(line) for line in (path / "timings.jsonl").read_text().splitlines()]
    parts = ("main_flops", "assistant_flops", "scorer_flops")
    assert cost["flops"] == sum(row[part] for row in rows for part in parts) > 0
    assert cost["decodes"] == 8
    assert [row["step"] for row in timings] == [1, 2]
    assert 0 < sum(cost["phases"].values()) <= cost["seconds"]


def test_several_runs_make_one_table(finished_run, dlr, tmp_path):
    path, done = finished_run
    code, out, _ = dlr("eval", path, path, "--saved", "--json")
    assert code == 0
    both, one = json.loads(out), json.loads(done.stdout)
    assert [run["run"] for run in both["runs"]] == [path.name] * 2
    for name, row in one["rows"].items():
        assert both["rows"][name]["accuracy"] == pytest.approx(row["accuracy"])
        assert both["rows"][name]["iqm"] == pytest.approx(row["accuracy"])
    code, out, _ = dlr("eval", path, path, "--saved", "--markdown")
    assert code == 0
    assert "| **trained** |" in out
    (tmp_path / "manifest.json").write_text("{}")
    code, _, err = dlr("eval", path, tmp_path, "--saved")
    assert code == 2
    assert err.startswith("error:")
    assert str(tmp_path) in err


def test_retention_compares_with_a_fresh_model_and_measures_other_tasks(finished_run, dlr):
    path, _ = finished_run
    code, out, _ = dlr("eval", "--retention", path, "--n", 10, "--json")
    assert code == 0
    kept = json.loads(out)
    assert kept["identical"] == kept["of"] == 10
    assert len(kept["tasks"]) == 5
    for row in kept["tasks"].values():
        assert row["n"] == 2
        gap = row["with"]["accuracy"] - row["without"]["accuracy"]
        assert row["difference"]["difference"] == pytest.approx(gap)
    assert kept["digest"]["before"] == kept["digest"]["after"]
    code, _, err = dlr("eval", "--retention", path, "--saved")
    assert code == 2
    assert "--retention" in err


def test_eval_gives_the_table_again_without_touching_the_run(finished_run, dlr):
    path, done = finished_run
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    code, out, _ = dlr("eval", path, "--n", 5, "--json")
    assert code == 0
    table = json.loads(out)
    check_table(table, 5)
    assert table == json.loads(done.stdout)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_eval_counts_sampled_chains_and_takes_other_questions(finished_run, dlr):
    path, _ = finished_run
    code, out, _ = dlr(
        "eval", path, "--n", 4, "--k", 2, "--samples", 3, "--split", "validation", "--data-seed", 3, "--json"
    )
    assert code == 0
    table = json.loads(out)
    check_table(table, 4)
    assert table["split"] == "validation"
    trained = table["rows"]["trained"]
    assert trained["k"] == 2
    assert trained["samples"] == 3
    assert 0 <= trained["pass_at"]["1"] <= trained["pass_at"]["2"] == trained["pass_at_k"] <= 1
    assert 0 <= trained["maj_at_k"] <= 1
    code, _, err = dlr("eval", path, "--k", 4, "--samples", 3)
    assert code == 2
    assert "--samples" in err


def test_ask_answers_with_and_without_latents(finished_run, dlr):
    path, _ = finished_run
    code, out, _ = dlr("ask", path, "How much is 3 + 4?", "--json")
    assert code == 0
    found = json.loads(out)
    assert {"plain", "anchor", "trained"} <= set(found)
    assert len(found["latent_rms"]) == len(found["nearest_tokens"]) == 2
    code, out, _ = dlr("ask", path, "How much is 3 + 4?")
    assert code == 0
    for shown in ("plain prompt", "anchor only", "with latents", "latent  2"):
        assert shown in out


def test_only_the_rows_that_are_named_are_measured(finished_run, dlr):
    path = finished_run[0]
    code, out, _ = dlr("eval", path, "--n", 5, "--row", "mean", "--row", "anchor", "--json")
    assert code == 0
    table, (_, whole, _) = json.loads(out), dlr("eval", path, "--n", 5, "--json")
    assert set(table["rows"]) == {"mean", "anchor", "trained"}
    assert set(table["paired"]) == {"mean", "anchor"}
    for name, row in table["rows"].items():
        assert row["accuracy"] == json.loads(whole)["rows"][name]["accuracy"]
    code, out, _ = dlr("eval", path, "--n", 5, "--row", "mean")
    assert code == 0
    assert "shuffled" not in out
    code, _, err = dlr("eval", path, "--row", "meen")
    assert code == 2
    assert err.startswith("error: --row: no row named 'meen'; did you mean 'mean'?")
    code, _, err = dlr("eval", path, "--saved", "--row", "mean")
    assert code == 2
    assert "--row" in err


def test_a_refiner_adds_a_row_and_an_answer_and_charges_for_them(finished_run, dlr):
    path, _ = finished_run
    code, out, _ = dlr("eval", path, "--n", 3, "--refiner", "latentseek", "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert rows["refined"]["gflops"] > 2 * rows["trained"]["gflops"]
    code, out, _ = dlr("ask", path, "How much is 3 + 4?", "--refiner", "latentseek")
    assert code == 0
    assert "refined" in out
    code, _, err = dlr("eval", path, "--refiner", "latentsek")
    assert code == 2
    assert err.startswith("error: no refiner named 'latentsek'; did you mean 'latentseek'?")
    code, _, err = dlr("eval", path, "--saved", "--refiner", "latentseek")
    assert code == 2
    assert "--refiner" in err


def test_eval_moves_a_run_to_another_environment(finished_run, dlr):
    path, _ = finished_run
    code, out, _ = dlr("eval", path, "--n", 3, "--env", "dlr/Products-v0", "--json")
    assert code == 0
    assert json.loads(out)["env"] == "dlr/Products-v0"


def test_the_table_for_people_has_a_line_per_row(finished_run, dlr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = dlr("eval", finished_run[0], "--n", 3)
    assert code == 0
    for label in ("plain prompt", "anchor only (a = 0)", "best hand-written prompt", "shuffled latents", "trained"):
        assert label in out
    assert "main model unchanged" in out


def test_eval_names_a_main_model_that_is_gone(finished_run, dlr, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run[0], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["config"]["decoder"]["model"] = str(tmp_path / "gone")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = dlr("eval", copy, "--n", 3)
    assert code == 2
    assert err.startswith(f"error: no main model at '{tmp_path}/gone'")


def test_a_run_is_replaced_only_when_asked(finished_run, dlr, tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run[0], copy)
    again = ["run", "--main-model", tiny_model, "--steps", 1, "--out", copy, *settings(eval__questions=0)]
    code, _, err = dlr(*again)
    assert code == 2
    assert "--overwrite" in err
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 2
    code, _, _ = dlr(*again, "--overwrite")
    assert code == 0
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (copy / "eval.json").exists()


def test_a_fitted_space_is_used_by_a_run(dlr, tiny_model, tmp_path):
    space = tmp_path / "space"
    sizes = ["--set", "space.num_latents=2", "--set", "space.latent_dim=4", "--set", "task.pool=40"]
    code, out, _ = dlr("space", "fit", space, "--main-model", tiny_model, "--questions", 4, *sizes, "--json")
    assert code == 0
    fitted = json.loads(out)
    assert set(fitted["rows"]) == {"anchor", "initial policy", "uniform"}
    assert json.loads((space / "space.json").read_text())["options"]["radius"] == fitted["radius"]
    no_space = {key: value for key, value in SMALL.items() if not key.startswith("space.")}
    flags = [part for key, value in no_space.items() for part in ("--set", f"{key}={value}")]
    run = ["run", "--main-model", tiny_model, "--space", space, "--estimator", "score", "--steps", 1]
    code, _, err = dlr(*run, "--out", tmp_path / "run", *flags, "--set", "eval.questions=0")
    assert code == 0, err


def wait_for_lines(path, count, process, seconds=90):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if path.is_file() and len(path.read_text().splitlines()) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"{path} never had {count} lines")


def test_an_interrupted_run_is_saved_and_resume_finishes_it(tiny_model, tmp_path, dlr):
    path, steps = tmp_path / "run", 60
    chosen = settings(eval__questions=3, checkpoint__every=1000, batch__questions=8, batch__samples=4)
    command = arguments_of("run", "--main-model", tiny_model, "--steps", steps, "--out", path, *chosen)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    wait_for_lines(path / "metrics.jsonl", 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"dlr run --resume {path}" in " ".join(out.split()).replace("- ", "-")
    done = len((path / "metrics.jsonl").read_text().splitlines())
    assert 2 <= done < steps
    assert (path / "checkpoints" / f"step-{done:06d}").is_dir()
    with (path / "metrics.jsonl").open("a") as log:  # as if more had been logged than was saved
        log.write(json.dumps({"step": done + 1}) + "\n")
    code, out, _ = dlr("run", "--resume", path, "--json")
    assert code == 0
    check_table(json.loads(out), 3)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert all("reward" in row for row in rows)


# ---- sharing -------------------------------------------------------------------------------------------------------


def test_push_wants_a_repository_or_a_folder(finished_run):
    for extra in ([], ["me/sums", "--folder", "shared"]):
        done = program("push", finished_run[0], *extra)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: expected a repository (owner/name) or --folder, one of them\n"


def test_ask_gives_the_same_answer_on_a_run_and_on_what_is_shared_of_it(finished_run, tmp_path):
    shared = tmp_path / "shared"
    assert program("push", finished_run[0], "--folder", shared).returncode == 0
    answers = [program("ask", folder, "1 + 1 =", "--json").stdout for folder in (finished_run[0], shared)]
    assert json.loads(answers[0]) == json.loads(answers[1])
    assert "| trained |" in (shared / "README.md").read_text()
