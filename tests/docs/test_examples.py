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

from dlr_core import ConfigError

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
SB3 = ["--decodes", "16", "--envs", "2", "--questions", "4"]
RUNS = {
    "sb3_ppo.py": [["--algorithm", "ppo", *SB3], ["--algorithm", "sac", *SB3]],
    "cleanrl_ppo.py": [["--decodes", "32", "--envs", "4", "--steps", "2", "--questions", "4"]],
    "evolution_strategies.py": [["--decodes", "16", "--envs", "4", "--questions", "4"]],
}


def test_every_script_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize(("script", "arguments"), [(name, args) for name, runs in RUNS.items() for args in runs])
def test_a_script_runs_and_prints_its_outcome(script, arguments, tiny_model):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments, "--main-model", str(tiny_model)],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"reward -?\d+\.\d+ -> ", done.stdout)
    for row in ("before: anchor", "after:  anchor", "random", "mean", "shuffled", "policy"):
        assert row in done.stdout, row


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
    from dlr_core.questions import distinct_items

    engine = env.unwrapped.engine
    index = [item.index for item in distinct_items(engine.task, "test", 3, 0)]
    observation, _ = env.reset(options={"index": index})
    np.testing.assert_allclose(observation, seen[0], rtol=1e-4, atol=1e-4)


def test_step_by_step_episodes_are_refused(tiny_model):
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=2, num_latents=2, latent_dim=4, latents_per_step=1, decoder=str(tiny_model)
    )
    with pytest.raises(ConfigError, match="one-step episodes"):
        compare_policy(env, lambda observations: observations, questions=3)
