"""Stable-Baselines3's own wrappers, callbacks and evaluation on the adapter."""

import csv

import gymnasium
import numpy as np
import pytest
from dlr_envs.sb3 import SB3VecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

T, D, N = 2, 4, 4


def varied(sample):
    """A reward that tells questions and completions apart."""
    return sample.tokens + 0.01 * sum(map(ord, sample.completion)) + 0.1 * (sum(map(ord, sample.question)) % 7)


@pytest.fixture
def kwargs(tiny_model):
    return {
        "decoder": str(tiny_model),
        "space": {"name": "kv", "chart": "random", "radius": 4.0},
        "num_latents": T,
        "latent_dim": D,
        "max_new_tokens": 4,
        "task_kwargs": {"pool": 32},
        "reward": varied,
    }


@pytest.fixture
def vector(kwargs):
    return lambda per_step=None: gymnasium.make_vec("dlr/ChainSum-v0", num_envs=N, latents_per_step=per_step, **kwargs)


@pytest.fixture
def policy(vector):
    return PPO("MlpPolicy", VecMonitor(SB3VecEnv(vector())), n_steps=4, batch_size=16, seed=0)


def chains(seed=0, width=T * D):
    return np.random.default_rng(seed).uniform(-1, 1, (N, width)).astype(np.float32)


def own_rewards(env, act, seed, episodes):
    """Rewards (episodes, N) that the vector environment itself pays a policy."""
    observation, _ = env.reset(seed=seed)
    paid = []
    for _ in range(episodes):
        observation, rewards, *_ = env.step(act(observation))
        paid.append(rewards)
    return np.array(paid)


def deterministic(model):
    return lambda observation: model.predict(observation, deterministic=True)[0]


def test_evaluate_policy_finds_the_rewards_that_the_environment_pays(vector, policy):
    expected = own_rewards(vector(), deterministic(policy), 11, 3)
    learner = VecMonitor(SB3VecEnv(vector()))
    learner.seed(11)
    rewards, lengths = evaluate_policy(policy, learner, n_eval_episodes=3 * N, return_episode_rewards=True)
    assert rewards == pytest.approx(expected.ravel().tolist(), abs=1e-4)
    assert lengths == [1] * 3 * N
    assert np.std(expected) > 0.1


def test_a_monitored_single_environment_is_evaluated_as_the_adapters_row_of_that_seed(vector, kwargs, policy):
    expected = own_rewards(vector(), deterministic(policy), 11, 3)[:, 0]
    single = DummyVecEnv([lambda: Monitor(gymnasium.make("dlr/ChainSum-v0", disable_env_checker=True, **kwargs))])
    single.seed(11)
    rewards, lengths = evaluate_policy(policy, single, n_eval_episodes=3, return_episode_rewards=True)
    assert rewards == pytest.approx(expected.tolist(), abs=1e-4)
    assert lengths == [1] * 3


def test_eval_callback_reports_the_mean_reward_that_the_environment_pays(vector, policy, tmp_path):
    learner = VecMonitor(SB3VecEnv(vector()))
    learner.seed(11)
    callback = EvalCallback(
        learner,
        n_eval_episodes=2 * N,
        eval_freq=4,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    policy.learn(4 * N, callback=callback)  # the evaluation comes at the end of the rollout, before the update
    untrained = PPO("MlpPolicy", SB3VecEnv(vector()), n_steps=4, batch_size=16, seed=0)
    expected = own_rewards(vector(), deterministic(untrained), 11, 2)
    assert callback.n_calls == 4
    assert callback.last_mean_reward == pytest.approx(expected.mean(), abs=1e-4)
    kept = np.load(tmp_path / "evaluations.npz")
    assert sorted(kept["results"].ravel().tolist()) == pytest.approx(sorted(expected.ravel().tolist()), abs=1e-4)
    best = PPO.load(tmp_path / "best_model")
    ones = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(deterministic(best)(ones), deterministic(untrained)(ones), atol=1e-6)


def test_vec_monitor_writes_each_episode_with_what_info_says_of_it(vector, tmp_path):
    env = vector(1)
    learner = VecMonitor(SB3VecEnv(env), str(tmp_path / "log"), info_keywords=("correct", "completion"))
    learner.reset()
    wanted = []
    for number in range(2 * T):
        rewards = learner.step(chains(number, D))[1]
        if number % T == T - 1:
            wanted += zip(rewards.tolist(), env.finished.completions.texts, strict=True)
    learner.close()
    with open(tmp_path / "log.monitor.csv", newline="") as file:
        next(file)
        rows = list(csv.DictReader(file))
    assert [row["l"] for row in rows] == [str(T)] * 2 * N
    assert [float(row["r"]) for row in rows] == pytest.approx([reward for reward, _ in wanted], abs=1e-4)
    assert [row["completion"] for row in rows] == [text for _, text in wanted]


def test_vec_normalize_standardises_observations_and_the_last_ones_of_episodes(vector):
    learner = VecNormalize(SB3VecEnv(vector()), norm_reward=False, clip_obs=1e6)
    seen = [learner.reset()]
    for number in range(6):
        observation, _, dones, infos = learner.step(chains(number))
        seen.append(learner.get_original_obs())
        mean, std = learner.obs_rms.mean, np.sqrt(learner.obs_rms.var + learner.epsilon)
        np.testing.assert_allclose(observation, (learner.get_original_obs() - mean) / std, rtol=1e-3, atol=1e-3)
        assert dones.all()
        for info in infos:  # nothing is left to see at the end of an episode: zeros, standardised
            np.testing.assert_allclose(info["terminal_observation"], -mean / std, rtol=1e-3, atol=1e-3)
    assert np.abs(observation).mean() == pytest.approx(0.8, abs=0.4)
    assert np.abs(infos[0]["terminal_observation"]).max() > 0.5


def test_vec_normalize_scales_rewards_by_the_spread_of_returns_and_keeps_the_original(vector):
    plain, learner = SB3VecEnv(vector()), VecNormalize(SB3VecEnv(vector()), norm_obs=False)
    for env in (plain, learner):
        env.seed(3)
        env.reset()
    for number in range(4):
        expected = plain.step(chains(number))[1]
        got = learner.step(chains(number))[1]
        np.testing.assert_allclose(learner.get_original_reward(), expected, rtol=1e-5)
        spread = np.sqrt(learner.ret_rms.var + learner.epsilon)
        np.testing.assert_allclose(got, np.clip(expected / spread, -10, 10), rtol=1e-4)


def test_saved_statistics_normalise_alike_in_another_process_of_the_same_policy(vector, tmp_path):
    learner = VecNormalize(SB3VecEnv(vector()))
    model = PPO("MlpPolicy", learner, n_steps=4, batch_size=16, seed=0).learn(32)
    learner.save(str(tmp_path / "statistics.pkl"))
    model.save(tmp_path / "model")
    loaded = VecNormalize.load(str(tmp_path / "statistics.pkl"), SB3VecEnv(vector()))
    loaded.training = loaded.norm_reward = False
    again = PPO.load(tmp_path / "model", env=loaded)
    before = loaded.obs_rms.mean.copy()
    np.testing.assert_array_equal(before, learner.obs_rms.mean)
    loaded.seed(5)
    rewards, _ = evaluate_policy(again, VecMonitor(loaded), n_eval_episodes=N, return_episode_rewards=True)
    np.testing.assert_array_equal(loaded.obs_rms.mean, before)

    def act(observation):
        return deterministic(model)(learner.normalize_obs(observation))

    assert rewards == pytest.approx(own_rewards(vector(), act, 5, 1)[0].tolist(), abs=1e-4)


def test_eval_callback_hands_the_learners_statistics_to_the_evaluation(vector):
    learner = VecNormalize(SB3VecEnv(vector()))
    held_out = VecNormalize(VecMonitor(SB3VecEnv(vector())), training=False, norm_reward=False)
    model = PPO("MlpPolicy", learner, n_steps=4, batch_size=16, seed=0)
    model.learn(4 * N, callback=EvalCallback(held_out, n_eval_episodes=N, eval_freq=4, verbose=0))
    np.testing.assert_array_equal(held_out.obs_rms.mean, learner.obs_rms.mean)
    assert np.abs(held_out.obs_rms.mean).max() > 0.1
