"""A policy trained by Stable-Baselines3 as a run folder, for ``dlr eval`` and everything else that reads runs.

SB3's own zip files hold pickles. This writes the actor's parameters and the space's chart as safetensors, the network's
shape and the environment's settings as JSON; the assistant ``sb3`` plays them without Stable-Baselines3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorObservationWrapper
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from dlr_core.artefact import described_space
from dlr_core.checkpoint import save_weights
from dlr_core.config import RunConfig, resolve
from dlr_core.errors import ConfigError, PluginError
from dlr_core.host import PluginHost
from dlr_core.pipeline import env_kwargs
from dlr_core.rundir import RunFolder
from dlr_envs.build import default_host
from dlr_envs.single import LatentEnv
from dlr_envs.vector import LatentVectorEnv
from dlr_envs.wrappers import ScaleObservation, VectorScaleObservation

ANY_TASK = "dlr/Reasoning-v0"
TOLERANCE = 1e-5
"""Largest difference of an action that rounding may make."""


@dataclass(frozen=True)
class _View:
    """What the policy sees of an observation: (o - shift) / scale, cut off at ±limit."""

    shift_H: NDArray[np.float64]
    scale_H: NDArray[np.float64]
    limit: float | None = None

    def __call__(self, observations: NDArray[Any]) -> NDArray[np.float32]:
        seen = (observations - self.shift_H) / self.scale_H
        return (seen if self.limit is None else seen.clip(-self.limit, self.limit)).astype(np.float32)


def export_policy(model: BaseAlgorithm, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model that was trained on a latent environment as a run folder.

    Args:
        model: PPO, A2C or SAC (or another with such a policy) with ``MlpPolicy``, trained on one-step episodes of an
            environment made by ``gymnasium.make`` or ``make_vec``, possibly under ``ScaleObservation``,
            ``VectorScaleObservation`` or ``VecNormalize``.
        folder: where to.
        overwrite: replace an earlier run there; else it must be new or empty.

    Returns:
        The folder.

    Raises:
        ConfigError: a policy, a wrapper or an environment that cannot be written down.
        PluginError: what would be written does not act as the model does.
        RunFolderError: the folder is taken.
    """
    env, view = _unwrap(model.get_env())
    engine, space = env.engine, env.engine.space
    if engine.latents_per_step != space.num_latents:
        raise ConfigError("export_policy needs one-step episodes: latents_per_step must be num_latents")
    options, tensors = _network(model)
    options["clip_observation"] = view.limit
    config, host = _settings(env, options, model)
    assistant = host.create(
        "assistant", "sb3", options,
        hidden_size=engine.decoder.hidden_size, num_latents=space.num_latents, latent_dim=space.latent_dim,
    )  # fmt: skip
    ends = {"shift_H": torch.as_tensor(view.shift_H).float(), "scale_H": torch.as_tensor(view.scale_H).float()}
    assistant.load_state_dict({**tensors, **ends})
    _check(assistant, model, view, engine)
    steps = int(config.steps or 0)
    made = RunFolder(Path(folder), overwrite=overwrite)
    try:
        parameters = {"assistant": sum(value.numel() for value in tensors.values()), "chart": 0}
        made.manifest(
            config, engine.decoder.fingerprint(), parameters=parameters,
            algorithm=f"{type(model).__name__} (stable-baselines3 {version('stable-baselines3')})",
            training={"steps": steps, "decodes": int(model.num_timesteps) * engine.decodes_per_chain},
        )  # fmt: skip
        save_weights({"assistant": assistant, "space": space}, made.path / "checkpoints" / f"step-{steps:06d}")
    finally:
        made.close()
    return made.path


def _network(model: BaseAlgorithm) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The actor's shape and parameters, named as the assistant ``sb3`` names them."""
    policy: Any = model.policy
    actor: Any = getattr(policy, "actor", None)
    if type(policy) is ActorCriticPolicy:
        squash, extractor, body = "clip", policy.pi_features_extractor, policy.mlp_extractor.policy_net
        owner, head, log_std = policy, policy.action_net, {"log_std": policy.log_std}
    elif hasattr(actor, "latent_pi") and isinstance(getattr(actor, "log_std", None), nn.Linear):
        squash, extractor, body, owner, head = "tanh", actor.features_extractor, actor.latent_pi, actor, actor.mu
        log_std = {"log_std.weight": actor.log_std.weight, "log_std.bias": actor.log_std.bias}
    else:
        raise ConfigError(f"expected the MlpPolicy of PPO, A2C or SAC, without gSDE, got {type(policy).__name__}")
    if type(extractor) is not FlattenExtractor or owner.use_sde:
        raise ConfigError("expected MlpPolicy with its own features extractor and without gSDE (use_sde)")
    hidden = [layer.out_features for layer in body if isinstance(layer, nn.Linear)]
    activations = {type(layer).__name__ for layer in body if not isinstance(layer, nn.Linear)}
    if len(activations) > 1:
        raise ConfigError(f"expected one activation after every hidden layer, got {', '.join(sorted(activations))}")
    tensors = {f"net.{key}": value for key, value in body.state_dict().items()}
    tensors |= {f"mean.{key}": value for key, value in head.state_dict().items()} | log_std
    options = {"hidden": hidden, "squash": squash, **({"activation": activations.pop()} if activations else {})}
    return options, {key: value.detach().cpu() for key, value in tensors.items()}


def _unwrap(env: Any) -> tuple[LatentEnv | LatentVectorEnv, _View]:
    """The latent environment under a model's wrappers, and what they make of its observations."""
    layers: list[Any] = []
    while not isinstance(env, LatentEnv | LatentVectorEnv):
        layers.append(env)
        inside = vars(env) if env is not None else {}
        env = inside.get("venv") or (inside.get("envs") or [inside.get("env")])[0]
        if env is None:
            raise ConfigError("expected a model that holds a latent environment (dlr/*), in this process")
    width = env.engine.decoder.hidden_size
    view, inner = _View(np.zeros(width), np.ones(width)), env
    for layer in reversed(layers):
        name = type(layer).__name__
        known = isinstance(layer, ScaleObservation | VectorScaleObservation | VecNormalize)
        strange = isinstance(layer, gymnasium.ObservationWrapper | gymnasium.ActionWrapper | VectorObservationWrapper)
        if not known and (strange or _boxes(layer) != _boxes(inner)):
            raise ConfigError(
                f"{name} changes observations or actions: only ScaleObservation, VectorScaleObservation and "
                "VecNormalize can be exported"
            )
        if known and view.limit is not None:
            raise ConfigError(f"{name} lies over a VecNormalize: only the outermost wrapper may cut observations off")
        if isinstance(layer, ScaleObservation | VectorScaleObservation):
            view = _View(view.shift_H, view.scale_H * layer.bound)
        elif isinstance(layer, VecNormalize) and layer.norm_obs:
            rms: Any = layer.obs_rms
            spread = np.sqrt(rms.var + layer.epsilon)
            view = _View(view.shift_H + view.scale_H * rms.mean, view.scale_H * spread, float(layer.clip_obs))
        inner = layer
    return env, view


def _boxes(layer: Any) -> tuple[Any, Any]:
    """Observation and action space of one environment."""
    if isinstance(layer, VectorEnv):
        return layer.single_observation_space, layer.single_action_space
    return layer.observation_space, layer.action_space


def _settings(env: Any, options: Mapping[str, Any], model: BaseAlgorithm) -> tuple[RunConfig, PluginHost]:
    """The settings of a run in this environment, and where its parts are registered."""
    if env.spec is None:
        raise ConfigError("export_policy needs an environment made by gymnasium.make or gymnasium.make_vec")
    given = dict(env.spec.kwargs)
    host = given.get("host") or default_host()
    task, task_options = given["task"], dict(given.get("task_kwargs") or {})
    decoder = _named("decoder", given.get("decoder", "smollm2-135m"), "model")
    sampling = {key: given[key] for key in ("temperature", "decodes_per_chain") if key in given}
    decoder |= {**sampling, "max_new_tokens": given["max_new_tokens"]}
    space = _named("space", given.get("space", "kv"), "name")
    if space["name"] not in host.names("space"):
        name, saved = described_space(Path(space["name"]).expanduser())
        space = {"name": name, **saved}
    space |= {key: given[key] for key in ("num_latents", "latent_dim") if given.get(key)}
    tree = {
        "env": env.spec.id,
        "seed": int(model.seed or 0),
        "steps": int(model.num_timesteps) // model.n_envs,
        "minutes": None,
        "task": {"name": task, **task_options},
        "decoder": decoder,
        "space": space,
        "assistant": {"name": "sb3", **options},
        "reward": _named("reward", given.get("reward", "dual"), "name"),
        "estimator": "score",
        "contrastive": "none",
        "loggers": [],
    }
    config = resolve(tree, host)
    if env_kwargs(config, host)["task_kwargs"] != task_options:  # the id's own task options would come back in
        own = host.create("env", config.env).eval_questions
        config = resolve({**tree, "env": ANY_TASK, "eval": {"questions": own}}, host)
    return config, host


def _named(what: str, given: Any, key: str) -> dict[str, Any]:
    """A part's settings from its name or its table."""
    if isinstance(given, str | Path):
        return {key: str(given)}
    if isinstance(given, Mapping):
        return dict(given)
    raise ConfigError(f"export_policy needs a {what} given by name or table, got an object: {type(given).__name__}")


def _check(assistant: Any, model: BaseAlgorithm, view: _View, engine: Any) -> None:
    """Hold what will be written against the model, on made-up observations.

    Raises:
        PluginError: they act differently.
    """
    bound_H = engine.decoder.state_bound().cpu().numpy()
    seen = (np.random.default_rng(0).uniform(-0.1, 0.1, (16, len(bound_H))) * bound_H).astype(np.float32)
    expected = model.predict(view(seen), deterministic=True)[0].clip(-1, 1)
    space = engine.space
    with torch.no_grad():
        still = torch.zeros(len(seen), space.num_latents, space.latent_dim)
        states = torch.as_tensor(seen)[:, None]
        made = assistant.sample(states, torch.ones(len(seen), 1), still).actions_NTD.flatten(1).numpy()
    gap = float(np.abs(made - expected).max())
    if not gap <= TOLERANCE:
        raise PluginError(f"the exported policy acts differently from the model: an action is {gap:.3g} away")
