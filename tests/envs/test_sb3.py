import gymnasium
import numpy as np
import pytest
from dlr_envs.sb3 import SB3VecEnv
from dlr_envs.wrappers import VectorScaleObservation
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import VecMonitor

T, D, N = 2, 4, 4


@pytest.fixture
def vector(tiny_model):
    def make(per_step=None, **more):
        return gymnasium.make_vec(
            "dlr/ChainSum-v0",
            num_envs=N,
            decoder=str(tiny_model),
            space={"name": "kv", "chart": "random"},
            num_latents=T,
            latent_dim=D,
            latents_per_step=per_step,
            max_new_tokens=4,
            task_kwargs={"pool": 32},
            **more,
        )

    return make


def chains(seed=0, width=T * D):
    return np.random.default_rng(seed).uniform(-1, 1, (N, width)).astype(np.float32)


def test_the_adapter_has_the_spaces_of_one_environment(vector):
    env = vector()
    adapter = SB3VecEnv(env)
    assert adapter.num_envs == N
    assert adapter.observation_space == env.single_observation_space
    assert adapter.action_space == env.single_action_space
    assert adapter.get_attr("render_mode") == [None] * N
    assert adapter.get_attr("group_size", [0, 1]) == [1, 1]
    assert adapter.env_is_wrapped(VecMonitor) == [False] * N


def test_the_adapter_steps_as_the_vector_environment_does(vector):
    plain, adapter = vector(), SB3VecEnv(vector())
    first, info = plain.reset(seed=3)
    adapter.seed(3)
    np.testing.assert_array_equal(adapter.reset(), first)
    assert [row["question"] for row in adapter.reset_infos] == list(info["question"])
    for number in range(2):
        expected, rewards, terminated, _, info = plain.step(chains(number))
        seen, got, dones, infos = adapter.step(chains(number))
        np.testing.assert_array_equal(seen, expected)
        np.testing.assert_allclose(got, rewards, rtol=1e-6)
        assert dones.tolist() == terminated.tolist() == [True] * N
        for row in range(N):
            np.testing.assert_array_equal(infos[row]["terminal_observation"], info["final_obs"][row])
            assert infos[row]["completion"] == info["final_info"]["completion"][row]
            assert infos[row]["TimeLimit.truncated"] is False
            assert adapter.reset_infos[row]["question"] == info["question"][row]


def test_a_seed_is_used_once(vector):
    adapter = SB3VecEnv(vector())
    questions = []
    for _ in range(2):
        adapter.seed(3)
        adapter.reset()
        questions.append([row["question"] for row in adapter.reset_infos])
    adapter.reset()
    assert questions[0] == questions[1] != [row["question"] for row in adapter.reset_infos]


def test_steps_within_an_episode_carry_no_terminal_observation(vector):
    adapter = SB3VecEnv(vector(per_step=1))
    adapter.reset()
    _, _, dones, infos = adapter.step(chains(width=D))
    assert not dones.any()
    assert not any("terminal_observation" in row for row in infos)
    _, _, dones, infos = adapter.step(chains(width=D))
    assert dones.all()
    assert all(row["terminal_observation"].shape == adapter.observation_space.shape for row in infos)


def test_episode_rewards_reach_vec_monitor(vector):
    env = VecMonitor(SB3VecEnv(vector(per_step=1)))
    env.reset()
    env.step(chains(width=D))
    _, rewards, _, infos = env.step(chains(1, width=D))
    assert [row["episode"]["l"] for row in infos] == [2] * N
    assert [row["episode"]["r"] for row in infos] == pytest.approx(rewards.tolist(), abs=1e-5)


def test_scaled_observations_pass_the_adapter(vector):
    adapter = SB3VecEnv(VectorScaleObservation(vector()))
    observation = adapter.reset()
    assert adapter.observation_space.high.tolist() == [1.0] * observation.shape[1]
    assert np.abs(observation).max() <= 1.0
    *_, infos = adapter.step(chains())
    assert np.abs(infos[0]["terminal_observation"]).max() <= 1.0


def weights(model):
    return [weight.detach().clone() for weight in model.policy.parameters()]


@pytest.mark.parametrize("per_step", [None, 1])
@pytest.mark.parametrize("scaled", [False, True])
def test_ppo_trains_and_the_main_model_stays(vector, per_step, scaled):
    env = vector(per_step)
    before = env.engine.decoder.fingerprint()
    wrapped = VecMonitor(SB3VecEnv(VectorScaleObservation(env) if scaled else env))
    model = PPO("MlpPolicy", wrapped, n_steps=8, batch_size=32, seed=0, policy_kwargs={"log_std_init": -3})
    old = weights(model)
    model.learn(64)
    assert model.num_timesteps == 64
    assert any(not bool((x == y).all()) for x, y in zip(old, weights(model), strict=True))
    assert len(model.ep_info_buffer) == 64 // (1 if per_step is None else T)
    assert env.engine.decoder.fingerprint() == before


def test_sac_trains_and_the_main_model_stays(vector):
    env = vector()
    before = env.engine.decoder.fingerprint()
    adapter = SB3VecEnv(VectorScaleObservation(env))
    model = SAC("MlpPolicy", adapter, learning_starts=16, batch_size=16, train_freq=2, buffer_size=200, seed=0)
    model.learn(48)
    assert model.num_timesteps == 48
    assert model._n_updates > 0
    assert env.engine.decoder.fingerprint() == before


def test_equal_seeds_train_equal_policies(vector):
    def train():
        model = PPO("MlpPolicy", SB3VecEnv(vector(temperature=1.0)), n_steps=4, batch_size=16, seed=1)
        return weights(model.learn(32))

    assert all(bool((x == y).all()) for x, y in zip(train(), train(), strict=True))
