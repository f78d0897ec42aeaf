"""TorchRL's GymWrapper on both environments."""

import dlr_envs  # noqa: F401  (registers the ids)
import gymnasium
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torchrl", "ignore::FutureWarning:torchrl")

T, D, N = 2, 4, 3


@pytest.fixture
def kwargs(tiny_model):
    space = {"name": "kv", "chart": "random"}
    return {
        "decoder": str(tiny_model), "space": space, "num_latents": T, "latent_dim": D, "max_new_tokens": 4,
        "task_kwargs": {"pool": 32}, "reward": lambda sample: sample.tokens + 0.01 * len(sample.question),
    }  # fmt: skip


@pytest.fixture
def wrapped(kwargs):
    def make(per_step):
        from torchrl.envs import GymWrapper

        return GymWrapper(
            gymnasium.make_vec(
                "dlr/ChainSum-v0", num_envs=N, latents_per_step=per_step, autoreset_mode="Disabled", **kwargs
            )
        )

    return make


@pytest.mark.parametrize("per_step", [T, 1])
def test_torchrl_accepts_the_specs_of_both_environments(kwargs, wrapped, per_step):
    from torchrl.envs import GymEnv, check_env_specs

    many = wrapped(per_step)
    assert many.batch_size == torch.Size([N])
    check_env_specs(many)
    check_env_specs(GymEnv("dlr/ChainSum-v0", latents_per_step=per_step, **kwargs))


@pytest.mark.parametrize("per_step", [T, 1])
def test_a_torchrl_rollout_is_the_vector_environments_own_episodes(kwargs, wrapped, per_step):
    env = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=N, latents_per_step=per_step, **kwargs)
    steps = 2 * T // per_step
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, N, per_step * D)).astype(np.float32)
    given = iter(actions)
    learner = wrapped(per_step)
    learner.set_seed(7)
    data = learner.rollout(steps, lambda td: td.set("action", torch.as_tensor(next(given))), break_when_any_done=False)
    env.reset(seed=7)  # as set_seed does
    observation, _ = env.reset()
    for number, action in enumerate(actions):
        np.testing.assert_allclose(data["observation"][:, number], observation, rtol=1e-5, atol=1e-5)
        observation, rewards, terminated, _, info = env.step(action)
        np.testing.assert_allclose(data["next", "reward"][:, number, 0], rewards, rtol=1e-6)
        assert data["next", "terminated"][:, number, 0].tolist() == terminated.tolist()
        last = np.stack(list(info["final_obs"])) if terminated.all() else observation
        np.testing.assert_allclose(data["next", "observation"][:, number], last, rtol=1e-5, atol=1e-5)
    assert len(set(data["next", "reward"][:, -1, 0].tolist())) > 1
