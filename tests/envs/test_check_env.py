import dlr_envs  # noqa: F401  (registers the ids)
import gymnasium
import numpy as np
import pytest
import torch
from dlr_envs.checker import check_latent_env
from dlr_envs.single import LatentEnv
from dlr_envs.vector import LatentVectorEnv
from dlr_envs.wrappers import ScaleObservation, VectorScaleObservation
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from dlr_core.errors import PluginError

IDS = sorted(name for name in gymnasium.registry if name.startswith("dlr/"))
SMALL = {"num_latents": 3, "latent_dim": 4, "max_new_tokens": 6}


@pytest.fixture
def kwargs_of(tiny_model, gsm8k_file):
    """Keyword arguments with which an id can be made offline on the tiny model."""

    def kwargs(env_id):
        made = {**SMALL, "decoder": str(tiny_model)}
        if env_id == "dlr/GSM8K-v0":
            made["task_kwargs"] = {"path": str(gsm8k_file)}
        elif gymnasium.spec(env_id).kwargs["task"] is None:
            made.update(task="reasoning-gym:gcd", task_kwargs={"pool": 16})
        return made

    return kwargs


@pytest.mark.parametrize("per_step", [None, 1])
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_and_sb3_accept_every_id(kwargs_of, env_id, per_step):
    env = gymnasium.make(env_id, latents_per_step=per_step, **kwargs_of(env_id)).unwrapped
    gymnasium_check_env(env)
    sb3_check_env(env)


@pytest.mark.parametrize("env_id", IDS)
def test_every_id_keeps_our_laws(kwargs_of, env_id):
    report = check_latent_env(env_id, **kwargs_of(env_id))
    assert report.completions == 12
    assert report.near_ties <= 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("space", ["kv", "input", {"name": "kv", "chart": "principal", "radius": 4.0}])
def test_every_space_keeps_our_laws_greedy_and_sampled(kwargs_of, space, temperature):
    kwargs = kwargs_of("dlr/ChainSum-v0")
    check_latent_env("dlr/ChainSum-v0", space=space, temperature=temperature, episodes=6, **kwargs)


def breaks(kwargs, law):
    with pytest.raises(PluginError, match=law):
        check_latent_env("dlr/ChainSum-v0", **kwargs)


def test_the_checker_notices_latents_that_matter_at_zero(kwargs_of, monkeypatch):
    from dlr_plugins.spaces.kv import KVSpace

    inject = KVSpace.inject
    monkeypatch.setattr(KVSpace, "inject", lambda self, cache, a: inject(self, cache, a + 0.5))
    breaks(kwargs_of("dlr/ChainSum-v0"), "zero latents = anchor text")


def test_the_checker_notices_episodes_that_forget_their_earlier_latents(kwargs_of, monkeypatch):
    from dlr_envs.engine import Engine

    finish = Engine._finish

    def forgetful(self, generators):
        if self.latents_per_step == 1:
            self.actions_NtD = self.actions_NtD.flip(1)
        return finish(self, generators)

    monkeypatch.setattr(Engine, "_finish", forgetful)
    breaks(kwargs_of("dlr/ChainSum-v0"), "step-by-step = one-step")


def test_the_checker_notices_a_batch_that_mixes_its_rows(kwargs_of, monkeypatch):
    act = LatentVectorEnv.step

    def mixed(self, actions):
        return act(self, np.roll(actions, 1, axis=0))

    monkeypatch.setattr(LatentVectorEnv, "step", mixed)
    breaks(kwargs_of("dlr/ChainSum-v0"), "single = batched")


def test_the_checker_notices_questions_that_ignore_the_seed(kwargs_of, monkeypatch):
    reset = LatentVectorEnv.reset
    monkeypatch.setattr(LatentVectorEnv, "reset", lambda self, *, seed=None, options=None: reset(self, options=options))
    breaks(kwargs_of("dlr/ChainSum-v0"), "two episodes with seed 0")


def test_the_checker_notices_a_main_model_that_moves(kwargs_of, host, monkeypatch):
    kwargs = kwargs_of("dlr/ChainSum-v0")
    decoder = host.create("decoder", "hf", {"model": kwargs["decoder"]})
    reset = LatentEnv.reset

    def training(self, **options):
        with torch.no_grad():
            self.engine.decoder.model.lm_head.weight[0, 0] += 1e-6
        return reset(self, **options)

    monkeypatch.setattr(LatentEnv, "reset", training)
    breaks({**kwargs, "decoder": decoder}, "weights have changed")


def test_scaled_observations_are_the_observations_over_their_bound(kwargs_of):
    kwargs = kwargs_of("dlr/ChainSum-v0")
    env = gymnasium.make("dlr/ChainSum-v0", latents_per_step=1, **kwargs).unwrapped
    scaled = ScaleObservation(env)
    bound = env.observation_space.high
    plain, _ = env.reset(seed=3)
    seen, _ = scaled.reset(seed=3)
    np.testing.assert_allclose(seen * bound, plain, rtol=1e-5, atol=1e-6)
    assert scaled.observation_space == gymnasium.spaces.Box(-1.0, 1.0, bound.shape, np.float32)
    assert scaled.observation_space.contains(seen)
    assert 0.01 < np.abs(seen).max() <= 1.0
    seen = scaled.step(np.zeros(4, np.float32))[0]
    assert scaled.observation_space.contains(seen)
    sb3_check_env(scaled)


def test_a_scaled_vector_environment_scales_every_observation(kwargs_of):
    kwargs = kwargs_of("dlr/ChainSum-v0")
    env = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=3, **kwargs)
    scaled = VectorScaleObservation(env)
    bound = env.single_observation_space.high
    actions = np.zeros((3, 12), np.float32)
    plain, _ = env.reset(seed=3)
    after = env.step(actions)[0]
    seen, _ = scaled.reset(seed=3)
    seen_after = scaled.step(actions)[0]
    np.testing.assert_allclose(seen * bound, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen_after * bound, after, rtol=1e-5, atol=1e-6)
    assert scaled.observation_space.contains(seen)
    assert scaled.single_observation_space.contains(seen[0])


def test_a_scaled_vector_environment_scales_the_last_observations_too(kwargs_of, monkeypatch):
    env = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=3, **kwargs_of("dlr/ChainSum-v0"))
    step, bound = LatentVectorEnv.step, env.single_observation_space.high

    def at_the_bound(self, actions):
        *rest, info = step(self, actions)
        info["final_obs"][:] = [bound, None, -bound]
        return (*rest, info)

    monkeypatch.setattr(LatentVectorEnv, "step", at_the_bound)
    scaled = VectorScaleObservation(env)
    scaled.reset(seed=0)
    last = scaled.step(np.zeros((3, 12), np.float32))[-1]["final_obs"]
    np.testing.assert_array_equal(last[0], np.ones_like(bound))
    assert last[1] is None
    np.testing.assert_array_equal(last[2], -np.ones_like(bound))
