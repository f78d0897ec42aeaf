"""Tasks one after another, and the HTML file that shows what came of it."""

import json
import re

import pytest
from dlr_cli.curriculum import read_plan

from dlr_core.errors import ConfigError

SMALL = {
    "task.pool": 40,
    "decoder.max_new_tokens": 3,
    "space.num_latents": 2,
    "space.latent_dim": 4,
    "assistant.width": 16,
    "assistant.layers": 1,
    "batch.questions": 2,
    "batch.samples": 2,
    "replay.search": 0,
    "eval.questions": 4,
}
TASKS = "dlr/ChainSum-v0,reasoning-gym:gcd,dlr/LetterCounting-v0"


def command(tiny_model, out, *more):
    chosen = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    return ["run", "--curriculum", TASKS, "--main-model", tiny_model, "--steps", 1, "--out", out, *chosen, *more]


def test_a_curriculum_leaves_matrices_runs_and_a_page_and_goes_on_where_it_stopped(dlr, tiny_model, tmp_path):
    out = tmp_path / "grown"
    code, text, err = dlr(*command(tiny_model, out, "--json"))
    assert code == 0, err
    result = json.loads(text)
    assert result == json.loads((out / "accumulation.json").read_text())
    assert result["tasks"] == ["dlr/ChainSum-v0", "reasoning-gym:gcd", "dlr/LetterCounting-v0"]
    assert result["n"] == [4, 4, 4]
    library, one = result["learners"]
    for learner in (library, one):
        assert [len(row) for row in learner["matrix"]] == [3, 3, 3]
        assert all(0 <= value <= 1 for row in learner["matrix"] for value in row)
    assert library["matrix"][0] == one["matrix"][0]  # before anything else is learned they are the same assistant
    assert {path.name for path in out.glob("*-[123]")} == {
        "library-1", "library-2", "library-3", "sequence-2", "sequence-3",
    }  # fmt: skip
    started = json.loads((out / "sequence-2" / "manifest.json").read_text())["config"]["init_from"]
    assert started == str((out / "library-1").resolve())
    page = (out / "report.html").read_text()
    assert "skill library with router" in page
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    (out / "sequence-3" / "manifest.json").unlink()
    for path in sorted((out / "sequence-3").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    code, text, _ = dlr(*command(tiny_model, out, "--json"))
    assert code == 0
    assert json.loads(text) == result
    after = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    assert {path for path in before if before[path] != after[path]} == {out / "sequence-3" / "metrics.jsonl"}
    code, _, err = dlr(*command(tiny_model, out, "--seed", 5))
    assert code == 2
    assert "another curriculum" in err


def test_a_plan_is_a_list_or_a_file_with_settings_of_its_own(host, tmp_path):
    listed = read_plan(TASKS, {"task": {"pool": 40}, "seed": 3}, host)
    assert [stage.config.env for stage in listed] == ["dlr/ChainSum-v0", "dlr/Reasoning-v0", "dlr/LetterCounting-v0"]
    assert all(stage.config.seed == 3 and stage.config.task.options == {"pool": 40} for stage in listed)
    file = tmp_path / "plan.toml"
    file.write_text(
        '[[tasks]]\nenv = "dlr/ChainSum-v0"\nminutes = 1.5\n[[tasks]]\n[tasks.task]\nname = "reasoning-gym:gcd"\n'
        '[tasks.space]\nname = "kv"\nanchor = "The GCD is"\n'
    )
    first, second = read_plan(str(file), {}, host)
    assert first.config.minutes == 1.5
    assert second.config.space.options["anchor"] == "The GCD is"
    assert second.name == "reasoning-gym:gcd"


@pytest.mark.parametrize("text", ["dlr/ChainSum-v0", "dlr/ChainSum-v0,dlr/ChainSum-v0", "dlr/ChainSum-v0,dlr/Nope-v0"])
def test_a_plan_of_one_task_or_of_unknown_ones_is_refused(host, text):
    with pytest.raises(ConfigError):
        read_plan(text, {}, host)


def test_the_page_needs_no_network_and_shows_every_part(dlr, tiny_model, tmp_path):
    chosen = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    for seed in (0, 1):
        code, _, err = dlr(
            "run", "--main-model", tiny_model, "--steps", 2, "--seed", seed, "--out", tmp_path / f"run{seed}", *chosen
        )
        assert code == 0, err
    assert (tmp_path / "run0" / "report.html").is_file()
    code, _, _ = dlr("eval", "--retention", tmp_path / "run0", "--n", 5)
    assert code == 0
    code, out, _ = dlr("report", tmp_path / "run0", tmp_path / "run1", "--out", tmp_path / "both.html")
    assert code == 0
    assert "both.html" in out
    page = (tmp_path / "both.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "url(http" not in page
    for shown in ("2 runs", "Format", "Cost so far", "Retention: run0", "Samples: run1", "trained − row", "viewport"):
        assert shown in page, shown
    code, _, err = dlr("report", tmp_path / "nothing")
    assert code == 2
    assert err.startswith("error:")


def test_a_sweep_trains_every_variant_once_and_compares_them(dlr, tiny_model, tmp_path):
    base = "".join(f"{key} = {value}\n" for key, value in SMALL.items())
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'seeds = [0, 1]\n[base]\nsteps = 1\n{base}decoder.model = "{tiny_model}"\n'
        'eval.controls = ["mean", "shuffled"]\n'
        '[[variants]]\nname = "default"\n[[variants]]\nname = "no contrast"\nset = { contrastive = "none" }\n'
    )
    out = tmp_path / "swept"
    code, text, _ = dlr("sweep", plan, "--out", out, "--dry-run")
    assert code == 0
    assert len(text.split()) == 4
    assert not out.exists()
    code, text, err = dlr("sweep", plan, "--out", out, "--part", "1/2", "--json")
    assert code == 0, err
    assert [line["seeds"] for line in json.loads(text)] == [[0, 1]]
    made = {path: path.stat().st_mtime_ns for path in out.glob("*/eval.json")}
    assert len(made) == 2
    code, text, _ = dlr("sweep", plan, "--out", out, "--json")
    assert code == 0
    default, other = json.loads(text)
    assert default["seeds"] == other["seeds"] == [0, 1]
    assert {"difference", "difference_ci", "minus_mean"} <= set(other)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert len(json.loads((out / "summary.json").read_text())) == 4
    table = json.loads((out / "default-seed0" / "eval.json").read_text())
    assert list(table["rows"]) == ["mean", "shuffled", "trained"]
    code, text, _ = dlr("sweep", plan, "--out", out, "--markdown")
    assert "| no contrast | 0, 1 |" in text


def test_a_sweep_with_a_bad_variant_starts_nothing(dlr, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[[variants]]\nname = "typo"\nset = { reward = "dule" }\n'
        '[[variants]]\nname = "row"\nset = { "eval.controls" = ["shufled"] }\n'
    )
    code, _, err = dlr("sweep", plan, "--out", tmp_path / "swept")
    assert code == 2
    assert "typo: no reward named 'dule'" in err
    assert "did you mean 'shuffled'" in err
    assert not (tmp_path / "swept").exists()
