"""Every example script runs, with short settings, on a tiny model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dlr_envs  # noqa: F401
import gymnasium
import numpy as np
import pytest
from dlr_envs.compare import compare_policy

from dlr_core.errors import ActionError
from dlr_core.evaluate import Evaluator
from dlr_core.questions import distinct_items

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
SB3 = ["--decodes", "16", "--envs", "2", "--questions", "4"]
SHORT = ["--decodes", "32", "--envs", "4", "--steps", "2", "--questions", "4"]
RUNS = {
    "sb3_ppo.py": [["--algorithm", "ppo", *SB3], ["--algorithm", "sac", *SB3, "--out", "OUT"]],
    "sb3_contrib_tqc.py": [SB3],
    "sb3_contrib_recurrent.py": [["--latents", "2", *SB3]],
    "torchrl_ppo.py": [SHORT],
    "cleanrl_ppo.py": [SHORT],
    "evolution_strategies.py": [["--decodes", "16", "--envs", "4", "--questions", "4"]],
}


def test_every_script_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize(("script", "arguments"), [(name, args) for name, runs in RUNS.items() for args in runs])
def test_a_script_runs_and_prints_its_outcome(script, arguments, tiny_model, tmp_path):
    arguments = [str(tmp_path / "run") if argument == "OUT" else argument for argument in arguments]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments, "--main-model", str(tiny_model)],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"reward -?\d+\.\d+ -> ", done.stdout)
    for row in ("before: anchor", "after:  anchor", "random", "mean", "shuffled", "policy"):
        assert row in done.stdout, row
    if "--out" in arguments:
        assert f"written: dlr eval {tmp_path / 'run'}" in done.stdout
        assert (tmp_path / "run" / "manifest.json").is_file()


def test_a_policy_that_does_nothing_is_the_anchor(tiny_model):
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=2, num_latents=2, latent_dim=4, decoder=str(tiny_model), max_new_tokens=3
    )
    width = env.single_action_space.shape[0]
    seen = []

    def nothing(observations):
        seen.append(observations)
        return np.zeros((len(observations), width))

    rows = compare_policy(env, nothing, questions=5)
    assert rows["policy"] == rows["anchor"] == rows["mean"] == rows["shuffled"]
    assert seen[0].shape == (5, *env.single_observation_space.shape)


def test_observations_are_those_of_reset(tiny_model):
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=3, num_latents=2, latent_dim=4, decoder=str(tiny_model), max_new_tokens=3,
        split="test",
    )  # fmt: skip
    env.reset(seed=0)
    seen = []

    def look(observations):
        seen.append(observations)
        return np.zeros((len(observations), env.single_action_space.shape[0]))

    compare_policy(env, look, questions=3)
    engine = env.unwrapped.engine
    index = [item.index for item in distinct_items(engine.task, "test", 3, 0)]
    observation, _ = env.reset(options={"index": index})
    np.testing.assert_allclose(observation, seen[0], rtol=1e-4, atol=1e-4)


def make(tiny_model, **more):
    return gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=3, num_latents=3, latent_dim=4, decoder=str(tiny_model), max_new_tokens=6,
        split="test", space={"name": "kv", "chart": "random", "radius": 4.0}, **more,
    )  # fmt: skip


class Slices:
    """Writes one whole chain from the first observation of an episode, and gives it out piece by piece."""

    def __init__(self, width, pieces):
        self.weights, self.pieces = np.random.default_rng(0).standard_normal((64, width)), pieces
        self.chain = None

    def begin(self):
        self.chain = None

    def act(self, observations):
        if self.chain is None:
            self.chain = np.split(np.sin(observations @ self.weights), self.pieces, axis=1)
        piece = self.chain[0]
        self.chain = [*self.chain[1:], piece]  # without begin the next episodes get this one's chain again
        return piece


@pytest.fixture
def answers(monkeypatch):
    """What every comparison answers, by row."""
    found, under_each = [], Evaluator.under_each

    def noted(self, items, chains):
        rows = under_each(self, items, chains)
        found.append({name: [sample.completion for sample in answers.samples] for name, answers in rows.items()})
        return rows

    monkeypatch.setattr(Evaluator, "under_each", noted)
    return found


def test_step_by_step_episodes_answer_as_one_step_episodes_of_the_same_latents(tiny_model, answers, monkeypatch):
    monkeypatch.setattr(Evaluator.__init__, "__defaults__", (4,))  # several batches: a policy must forget between them
    for per_step in (3, 1):
        policy = Slices(12, 3 // per_step)
        compare_policy(make(tiny_model, latents_per_step=per_step), policy.act, begin=policy.begin, questions=10)
    whole, stepwise = answers
    assert whole == stepwise
    assert len(set(whole["policy"])) > 3
    assert whole["policy"] != whole["anchor"]


def test_a_stateless_policy_is_compared_step_by_step_as_if_its_latents_were_given_at_once(tiny_model, answers):
    latent = np.random.default_rng(1).uniform(-1, 1, 4)
    for per_step in (3, 1):
        env = make(tiny_model, latents_per_step=per_step)
        compare_policy(env, lambda seen, n=per_step: np.tile(latent, (len(seen), n)), questions=6)
    assert answers[0] == answers[1]
    assert answers[0]["policy"] != answers[0]["anchor"]


def test_the_comparison_shows_a_step_by_step_policy_what_the_environment_shows(tiny_model):
    env, seen = make(tiny_model, latents_per_step=1), []

    def act(observations):
        seen.append(observations)
        return np.sin(observations[:, :4])

    compare_policy(env, act, questions=3)
    index = [item.index for item in distinct_items(env.unwrapped.engine.task, "test", 3, 0)]
    observation, _ = env.reset(options={"index": index})
    assert len(seen) == 3
    for shown in seen:
        np.testing.assert_allclose(shown, observation, rtol=1e-4, atol=1e-4)
        observation = env.step(np.sin(observation[:, :4]))[0]
    assert np.abs(seen[1] - seen[0]).max() > 1e-3


def test_a_policy_whose_actions_have_the_wrong_shape_is_refused(tiny_model):
    env = make(tiny_model, latents_per_step=1)
    with pytest.raises(ActionError, match=r"expected actions of shape \(5, 4\), got \(5, 12\)"):
        compare_policy(env, lambda seen: np.zeros((len(seen), 12)), questions=5)
