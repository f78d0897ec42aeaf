import gymnasium
import numpy as np
import pytest
from reasoning_gym.factory import DATASETS

import dlr_envs  # noqa: F401  (registers the ids)

GENERATORS = sorted(set(DATASETS) - {"composite"})


@pytest.fixture(scope="module")
def parts(tiny_decoder):
    """One decoder and one space for all generators."""
    from dlr_core import PluginHost

    options = {"chart": "random", "num_latents": 2, "latent_dim": 4}
    space = PluginHost.from_entry_points().create("space", "kv", options, decoder=tiny_decoder)
    space.calibrate(["What is 1 + 1?", "Name a colour."])
    return {"decoder": tiny_decoder, "space": space}


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_can_be_reset_and_stepped(parts, name):
    task = {"task": f"reasoning-gym:{name}", "task_kwargs": {"pool": 2}}
    env = gymnasium.make("dlr/Reasoning-v0", max_new_tokens=3, **task, **parts).unwrapped
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["question"].strip()
    _, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
    assert (terminated, truncated) == (True, False)
    assert 0.0 <= info["correct"] <= 1.0
    assert np.isfinite(reward)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generators_own_answer_is_right(parts, name):
    task = {"task": f"reasoning-gym:{name}", "task_kwargs": {"pool": 2}}
    made = gymnasium.make("dlr/Reasoning-v0", max_new_tokens=3, **task, **parts).unwrapped.engine.task
    for split in ("train", "test"):
        item = made.item(split, 0)
        verdict = made.score(item, f"<answer>{item.answer}</answer>", True)
        assert verdict.correct == pytest.approx(1.0)
        assert verdict.format == 1.0
