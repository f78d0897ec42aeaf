"""Completions are judged while the frozen model is at its next batch, and nothing but the time is different."""

import threading

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from dlr_core.errors import ActionError, PluginError

ID = "dlr/ChainSum-v0"
PATIENCE = 20.0


@pytest.fixture
def make(tiny_model):
    def made(**more):
        sizes = {"num_latents": 2, "latent_dim": 4, "max_new_tokens": 6, "decoder": str(tiny_model)}
        env = gymnasium.make_vec(ID, num_envs=4, **{**sizes, "task_kwargs": {"pool": 64}, **more})
        env.reset(seed=3)
        return env

    return made


ACTIONS = np.zeros((4, 8), np.float32)


def test_the_next_prompts_are_read_while_the_verdicts_are_given(make, monkeypatch):
    env = make()
    read, prefill, reward = threading.Event(), env.engine.prefill, env.engine.reward

    def noticed(questions):
        read.set()
        return prefill(questions)

    def late(sample):
        assert read.wait(PATIENCE), "the next prompts wait for this verdict"
        return reward(sample)

    monkeypatch.setattr(env.engine, "prefill", noticed)
    monkeypatch.setattr(env.engine, "reward", late)
    env.step(ACTIONS)


def test_a_step_gives_what_a_step_and_a_reset_after_it_give(make):
    together, apart = make(temperature=1.0), make(temperature=1.0, autoreset_mode=AutoresetMode.DISABLED)
    for _ in range(3):
        following, rewards, _, _, info = together.step(ACTIONS)
        last, expected, _, _, ended = apart.step(ACTIONS)
        begun, _ = apart.reset()
        np.testing.assert_array_equal(following, begun)
        np.testing.assert_array_equal(rewards, expected)
        np.testing.assert_array_equal(np.stack(info["final_obs"]), last)
        assert list(info["final_info"]["completion"]) == list(ended["completion"])


def test_after_a_reward_that_raises_nothing_goes_on_without_a_reset(make, monkeypatch):
    env = make()

    def broken(sample):
        raise RuntimeError("no verdict today")

    with monkeypatch.context() as patch:
        patch.setattr(env.engine, "reward", broken)
        with pytest.raises(PluginError, match="no verdict today"):
            env.step(ACTIONS)
    with pytest.raises(ActionError, match="expected reset"):
        env.step(ACTIONS)
    env.reset(seed=3)
    env.step(ACTIONS)


def test_the_completion_that_a_verifier_hangs_on_is_named(make, monkeypatch):
    env = make(judge_seconds=1.0, temperature=1.0)
    score, asked = env.engine.task.score, []

    def hanging(item, text, ended):
        asked.append(text)
        if len(asked) == 3:
            threading.Event().wait(PATIENCE)
        return score(item, text, ended)

    monkeypatch.setattr(env.engine.task, "score", hanging)
    with pytest.raises(PluginError, match="has not answered within 1 s") as late:
        env.step(ACTIONS)
    assert len(asked) == len(set(asked)) == 3
    assert str(late.value).endswith(f"on {asked[2]!r}")
