"""A policy that SB3 trained, written down and evaluated: the same latents, the same completions, no pickle."""

import json
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from dlr_envs.export import export_policy
from dlr_envs.sb3 import SB3VecEnv
from dlr_envs.wrappers import ScaleObservation, VectorScaleObservation
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize
from torch import nn

from dlr_core import ConfigError, PluginError
from dlr_core.artefact import save_space
from dlr_core.errors import RunFolderError
from dlr_core.evaluate import Evaluator
from dlr_core.pipeline import DLRPipeline
from dlr_core.questions import distinct_items

T, D, N = 2, 4, 4


def observed(engine, questions):
    """First observations of questions, as ``reset`` gives them."""
    cache = engine.prefill(questions)
    zeros = torch.zeros(cache.rows, 0, engine.space.latent_dim)
    with torch.no_grad():
        return engine.space.observe(cache, zeros).float().numpy()


@pytest.fixture
def vector(tiny_model):
    def make(**more):
        chosen = {
            "num_envs": N, "decoder": str(tiny_model), "space": {"name": "kv", "chart": "principal", "radius": 0.7},
            "num_latents": T, "latent_dim": D, "max_new_tokens": 4, "task_kwargs": {"pool": 32},
        }  # fmt: skip
        return gymnasium.make_vec("dlr/ChainSum-v0", **{**chosen, **more})

    return make


def ppo(env, **policy):
    return PPO("MlpPolicy", env, n_steps=8, batch_size=16, learning_rate=0.01, seed=0, policy_kwargs=policy).learn(64)


def sac(env, **policy):
    return SAC("MlpPolicy", env, learning_starts=8, batch_size=16, seed=0, buffer_size=99, policy_kwargs=policy).learn(
        40
    )


WRAPPED = {
    "bare": lambda env: SB3VecEnv(env),
    "unwrapped": lambda env: VecMonitor(SB3VecEnv(env.unwrapped)),
    "scaled": lambda env: VecMonitor(SB3VecEnv(VectorScaleObservation(env))),
    "normalised": lambda env: VecNormalize(SB3VecEnv(env), norm_reward=False, clip_obs=1.0),
    "both": lambda env: VecMonitor(VecNormalize(SB3VecEnv(VectorScaleObservation(env)))),
}


def view(learner, observations):
    """Observations as a learner's own wrappers give them."""
    scaled = observations
    inner = learner
    while hasattr(inner, "venv"):
        inner = inner.venv
    if isinstance(inner.env, VectorScaleObservation):
        scaled = observations / inner.env.bound
    normalise = next((x for x in (learner, getattr(learner, "venv", None)) if isinstance(x, VecNormalize)), None)
    return scaled if normalise is None else normalise.normalize_obs(scaled)


def actions_of(model, env, items):
    engine = env.unwrapped.engine
    seen = view(model.get_env(), observed(engine, [item.question for item in items]))
    return model.predict(seen, deterministic=True)[0].clip(-1, 1)


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("train", [ppo, sac])
def test_the_exported_policy_acts_as_the_model_does(vector, tmp_path, train, wrapped):
    env = vector()
    model = train(WRAPPED[wrapped](env))
    run = DLRPipeline.from_run(export_policy(model, tmp_path / "run"))
    items = distinct_items(run.engine.task, "test", 6)
    expected = actions_of(model, env, items)
    latents = Evaluator(run.engine).latents(items, run.assistant).reshape(len(items), -1)
    np.testing.assert_allclose(latents, expected, atol=2e-6 if wrapped in ("bare", "unwrapped", "scaled") else 1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-4  # the questions are told apart


@pytest.mark.parametrize("train", [ppo, sac])
def test_completions_of_the_run_are_those_of_the_environment(vector, tmp_path, train):
    env = vector(split="test")
    model = train(SB3VecEnv(env))
    run = DLRPipeline.from_run(export_policy(model, tmp_path / "run"))
    observation, info = env.reset(seed=5)
    items = [run.engine.task.item("test", int(index)) for index in info["index"]]
    assert [item.question for item in items] == list(info["question"])
    *_, info = env.step(model.predict(observation, deterministic=True)[0])
    evaluator = Evaluator(run.engine)
    samples = evaluator.under_latents(items, evaluator.latents(items, run.assistant))
    assert [sample.completion for sample in samples] == list(info["final_info"]["completion"])
    assert [sample.correct for sample in samples] == list(info["final_info"]["correct"])


def test_the_clipped_actions_of_ppo_reach_the_edge_of_the_box(vector, tmp_path):
    env = vector()
    model = ppo(SB3VecEnv(env))
    with torch.no_grad():
        model.policy.action_net.bias.copy_(torch.tensor([3.0, -3.0, 1.0, -1.0, 0.999, 0.0, 0.5, -0.5]))
    run = DLRPipeline.from_run(export_policy(model, tmp_path / "run"))
    items = distinct_items(run.engine.task, "test", 4)
    latents = Evaluator(run.engine).latents(items, run.assistant).reshape(len(items), -1)
    np.testing.assert_allclose(latents, actions_of(model, env, items), atol=2e-6)
    assert np.abs(latents[:, :2]).min() > 1 - 1e-6


def test_sampled_chains_are_spread_as_the_model_spreads_them(vector, tmp_path):
    env = vector()
    model = ppo(SB3VecEnv(env), log_std_init=-1.0)
    run = DLRPipeline.from_run(export_policy(model, tmp_path / "run"))
    items = distinct_items(run.engine.task, "test", 1)
    noise = np.random.default_rng(0).standard_normal((1, T, D)).astype(np.float32)
    drawn = Evaluator(run.engine).latents(items, run.assistant, noise).ravel()
    sigma = model.policy.log_std.detach().exp().numpy()
    expected = (actions_of(model, env, items)[0] + sigma * noise.ravel()).clip(-1, 1)
    np.testing.assert_allclose(drawn, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("train", "policy"),
    [
        (ppo, {"net_arch": {"pi": [5], "vf": [7]}, "activation_fn": nn.ELU}),
        (ppo, {"net_arch": []}),
        (sac, {"net_arch": [9, 3, 9], "activation_fn": nn.SiLU}),
    ],
)
def test_other_shapes_of_network_are_written_too(vector, tmp_path, train, policy):
    env = vector()
    model = train(SB3VecEnv(env), **policy)
    run = DLRPipeline.from_run(export_policy(model, tmp_path / "run"))
    items = distinct_items(run.engine.task, "test", 3)
    latents = Evaluator(run.engine).latents(items, run.assistant).reshape(3, -1)
    np.testing.assert_allclose(latents, actions_of(model, env, items), atol=2e-6)


def test_single_environments_under_sb3s_own_wrappers_are_found(tiny_model, tmp_path):
    kwargs = {"decoder": str(tiny_model), "num_latents": T, "latent_dim": D, "max_new_tokens": 4}
    env = ScaleObservation(gymnasium.make("dlr/Products-v0", space={"name": "kv", "chart": "random"}, **kwargs))
    model = A2C("MlpPolicy", env, n_steps=4, seed=0).learn(8)
    folder = export_policy(model, tmp_path / "run")
    config = json.loads((folder / "manifest.json").read_text())["config"]
    assert config["env"] == "dlr/Products-v0"
    run = DLRPipeline.from_run(folder)
    items = distinct_items(run.engine.task, "test", 2)
    seen = observed(env.unwrapped.engine, [item.question for item in items]) / env.bound
    latents = Evaluator(run.engine).latents(items, run.assistant).reshape(2, -1)
    np.testing.assert_allclose(latents, model.predict(seen, deterministic=True)[0], atol=2e-6)


def test_the_settings_of_the_environment_are_written_whole(vector, tmp_path, tiny_model):
    env = vector(temperature=0.5, reward={"name": "dual", "format_weight": 0.3})
    folder = export_policy(ppo(SB3VecEnv(env)), tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    config = manifest["config"]
    assert config["decoder"]["model"] == str(tiny_model)
    assert (config["decoder"]["temperature"], config["decoder"]["max_new_tokens"]) == (0.5, 4)
    assert (config["space"]["num_latents"], config["space"]["latent_dim"], config["space"]["radius"]) == (T, D, 0.7)
    assert config["reward"]["format_weight"] == 0.3
    assert manifest["training"] == {"steps": 16, "decodes": 64}
    assert manifest["algorithm"].startswith("PPO (stable-baselines3 2.")
    assert manifest["main_model"]["digest_before"] == env.unwrapped.engine.decoder.fingerprint()
    # task_kwargs replace the id's own, whose two-term sums must not come back
    run = DLRPipeline.from_run(folder)
    assert (config["env"], config["task"]["name"]) == ("dlr/Reasoning-v0", "reasoning-gym:chain_sum")
    ours, theirs = (distinct_items(engine.task, "test", 9) for engine in (run.engine, env.unwrapped.engine))
    assert ours == theirs
    same = run.engine.space.state_dict(), env.unwrapped.engine.space.state_dict()
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[1])


def test_a_space_out_of_a_folder_goes_with_the_policy(vector, tmp_path):
    fitted = vector(space={"name": "kv", "chart": "random", "radius": 0.9}).unwrapped.engine
    options = {**fitted.space.options.model_dump(mode="json"), "chart": "joint"}
    digest = fitted.decoder.fingerprint()
    save_space(fitted.space, tmp_path / "space", name="kv", options=options, digest=digest)
    env = vector(space=str(tmp_path / "space"))
    folder = export_policy(ppo(SB3VecEnv(env)), tmp_path / "run")
    shutil.rmtree(tmp_path / "space")
    space = DLRPipeline.from_run(folder).engine.space
    assert (space.options.chart, space.options.radius, space.trainable()) == ("random", 0.9, [])
    assert all(torch.equal(value, fitted.space.state_dict()[key]) for key, value in space.state_dict().items())


def test_an_id_with_its_own_task_keeps_its_name(tiny_model, tmp_path):
    kwargs = {"decoder": str(tiny_model), "num_latents": T, "latent_dim": D}
    env = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=N, space={"name": "kv", "chart": "random"}, **kwargs)
    folder = export_policy(PPO("MlpPolicy", SB3VecEnv(env), n_steps=4, batch_size=16), tmp_path / "run")
    config = json.loads((folder / "manifest.json").read_text())["config"]
    assert config["env"] == "dlr/ChainSum-v0"
    assert config["task"]["max_digits"] == 2


def test_nothing_that_is_written_is_a_pickle_and_nothing_is_replaced_unasked(vector, tmp_path):
    model = ppo(SB3VecEnv(vector()))
    folder = export_policy(model, tmp_path / "run")
    with pytest.raises(RunFolderError, match="not empty"):
        export_policy(model, folder)
    export_policy(model, folder, overwrite=True)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "manifest.json", "metrics.jsonl", "timings.jsonl", "checkpoints/step-000016/weights.safetensors",
    }  # fmt: skip


def refused(vector, **more):
    """Models that cannot be written down, and what is said of them."""

    def learner(**kwargs):
        return SB3VecEnv(vector(**kwargs))

    yield PPO("MlpPolicy", learner(latents_per_step=1), n_steps=4, batch_size=16), "one-step episodes"
    yield PPO("MlpPolicy", learner(), n_steps=4, batch_size=16, use_sde=True), "gSDE"
    yield SAC("MlpPolicy", learner(), use_sde=True, buffer_size=9), "gSDE"
    yield TD3("MlpPolicy", learner(), buffer_size=9), "got TD3Policy"
    yield PPO("MlpPolicy", VecFrameStack(learner(), 2), n_steps=4, batch_size=16), "VecFrameStack changes observations"
    engine = vector().unwrapped.engine
    yield (
        PPO("MlpPolicy", learner(decoder=engine.decoder), n_steps=4, batch_size=16),
        "a decoder given by name or table",
    )
    yield (
        PPO("MlpPolicy", learner(space=engine.space, num_latents=None, latent_dim=None), n_steps=4, batch_size=16),
        "a space given",
    )
    homeless = PPO("MlpPolicy", learner(), n_steps=4, batch_size=16)
    homeless.env = None
    yield homeless, "holds a latent environment"


def test_what_cannot_be_written_down_is_refused_and_leaves_nothing(vector, tmp_path):
    for number, (model, reason) in enumerate(refused(vector)):
        with pytest.raises(ConfigError, match=reason):
            export_policy(model, tmp_path / str(number))
        assert not (tmp_path / str(number)).exists()


def test_a_policy_that_would_be_written_wrongly_is_not_written(vector, tmp_path, monkeypatch):
    model = ppo(SB3VecEnv(vector()))
    monkeypatch.setattr(model, "predict", lambda observations, deterministic: (np.ones((len(observations), T * D)), 0))
    with pytest.raises(PluginError, match="acts differently"):
        export_policy(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
