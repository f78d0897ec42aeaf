"""What the program does with a policy that was trained elsewhere."""

import json

import gymnasium
import pytest
from dlr_envs.export import export_policy
from dlr_envs.sb3 import SB3VecEnv
from stable_baselines3 import PPO

SIZES = {"num_latents": 2, "latent_dim": 4, "max_new_tokens": 4}
TASK = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2, "pool": 40}


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    """A run folder with a policy of PPO's."""
    env = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=4, decoder=str(tiny_model), task_kwargs=TASK, **SIZES)
    model = PPO("MlpPolicy", SB3VecEnv(env), n_steps=4, batch_size=16, seed=0).learn(16)
    return export_policy(model, tmp_path_factory.mktemp("runs") / "ppo")


def test_it_has_a_table_of_its_own_and_one_with_a_run_of_ours(dlr, exported, tiny_model, tmp_path):
    code, out, err = dlr("eval", exported, "--n", 5, "--k", 2, "--json")
    assert code == 0, err
    alone = json.loads(out)
    assert list(alone["rows"]) == ["plain", "anchor", "best_prompt", "random", "mean", "shuffled", "trained"]
    assert alone["digest"]["before"] == alone["digest"]["after"]
    assert "pass_at_k" in alone["rows"]["trained"]
    assert (alone["env"], alone["run"]) == ("dlr/ChainSum-v0", "ppo")
    small = ["task.pool=40", "space.num_latents=2", "space.latent_dim=4", "decoder.max_new_tokens=4",
             "assistant.width=16", "batch.questions=2", "batch.samples=2", "replay.search=0",
             "eval.questions=0"]  # fmt: skip
    flags = [part for setting in small for part in ("--set", setting)]
    assert dlr("run", "--main-model", tiny_model, "--steps", 1, "--out", tmp_path / "ours", *flags)[0] == 0
    code, out, err = dlr("eval", tmp_path / "ours", exported, "--n", 5, "--json")
    assert code == 0, err
    both = json.loads(out)
    assert [run["run"] for run in both["runs"]] == ["ours", "ppo"]
    assert both["runs"][1]["trained"] == alone["rows"]["trained"]["accuracy"]


def test_it_answers_is_reported_and_measured_for_retention(dlr, exported, tmp_path):
    code, out, err = dlr("ask", exported, "How much is 3 + 4?", "--json")
    assert code == 0, err
    assert len(json.loads(out)["nearest_tokens"]) == 2
    code, _, err = dlr("report", exported, "--out", tmp_path / "page.html")
    assert code == 0, err
    assert "PPO (stable-baselines3" in (tmp_path / "page.html").read_text()
    code, out, err = dlr("eval", "--retention", exported, "--n", 5, "--json")
    assert code == 0, err


def test_training_it_here_is_refused_in_one_line(dlr, exported, tmp_path, tiny_model):
    refusal = "error: assistant 'sb3' was trained elsewhere: it can be evaluated, not trained\n"
    before = {file: file.read_bytes() for file in exported.rglob("*") if file.is_file()}
    assert dlr("run", "--resume", exported, "--steps", 99)[::2] == (2, refusal)
    small = ("--main-model", tiny_model, "--set", "task.pool=40", "--out", tmp_path / "run")
    assert dlr("run", "--assistant", "sb3", *small)[::2] == (2, refusal)
    assert not (tmp_path / "run").exists()
    assert {file: file.read_bytes() for file in exported.rglob("*") if file.is_file()} == before
