"""From the keyword arguments of an environment to its engine."""

import inspect
import math
import numbers
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dlr_core.artefact import load_space
from dlr_core.config import greedy_repeats
from dlr_core.errors import ArgumentError, ConfigError, shown, unknown_name
from dlr_core.host import PluginHost
from dlr_core.paths import expanded, is_folder
from dlr_core.protocols import Decoder, Space
from dlr_core.questions import calibration_questions
from dlr_envs.arguments import whole
from dlr_envs.engine import JUDGE_SECONDS, Engine

Named = str | Mapping[str, Any]


@lru_cache(maxsize=1)
def default_host() -> PluginHost:
    """The host that environments made by id share; loaded on first use."""
    return PluginHost.from_entry_points()


_decoders: dict[str, Decoder] = {}


def _decoder(host: PluginHost, given: Any) -> Decoder:
    """An instance, a model's name, or ``{"name": backend, …options}``; equal descriptions share one model in memory."""
    if not isinstance(given, str | Mapping):
        return _part("decoder", given, hasattr(given, "prefill"))  # type: ignore[no-any-return]
    settings = {"model": given} if isinstance(given, str) else dict(given)
    name = settings.pop("name", "hf")
    host.options("decoder", name, settings)
    key = repr((name, sorted(settings.items())))
    if key not in _decoders:
        _decoders[key] = host.create("decoder", name, settings)
    return _decoders[key]


def build_engine(
    *,
    task: str | None,
    task_kwargs: Mapping[str, Any] | None = None,
    decoder: Any = "smollm2-135m",
    space: Any = "kv",
    reward: Any = "dual",
    num_latents: int | None = None,
    latent_dim: int | None = None,
    latents_per_step: int | None = None,
    temperature: float = 0.0,
    max_new_tokens: int = 16,
    decodes_per_chain: int = 1,
    judge_seconds: float | None = JUDGE_SECONDS,
    host: PluginHost | None = None,
    **unknown: Any,
) -> Engine:
    """Build every part by name, or take it as it is given.

    Args:
        task: a task's name, such as ``reasoning-gym:chain_sum``.
        task_kwargs: its options.
        decoder: a model's name, folder, GGUF file or hub id; a mapping with a backend's ``name``; or a decoder.
        space: a space's name, the folder of a saved artefact, a mapping with a ``name``, or a space.
        reward: a reward's name, a mapping with a ``name``, or a reward.
        num_latents: T; the space's default if not given.
        latent_dim: D; likewise.
        latents_per_step: latents in one action; T (one-step episodes) if not given. Must divide T.
        temperature: of the sampled tokens; 0 decodes greedily.
        max_new_tokens: limit on a completion.
        decodes_per_chain: M, completions sampled under one chain of latents; its reward is their mean (LaDi-RL, Kang et
            al. 2026, arXiv 2602.01705: the decoder is marginalised out of what a latent is worth).
        judge_seconds: limit on one call of the task's verifier or of the reward; None: none.
        host: where names are looked up.
        unknown: keyword arguments that there are not; refused.

    Raises:
        ConfigError: an unknown name or a bad option.
        ArgumentError: unknown keyword arguments.
    """
    if unknown:
        raise ArgumentError(
            *(f"unexpected keyword argument '{key}': {unknown_name('argument', key, ARGUMENTS)}" for key in unknown)
        )
    host = host or default_host()
    if task is None:
        raise ConfigError('this environment needs a task, for example task="reasoning-gym:gcd"')
    if not isinstance(temperature, numbers.Real) or not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature: expected a finite number of at least 0, got {shown(temperature)}")
    max_new_tokens = whole("max_new_tokens", max_new_tokens, 1)
    decodes_per_chain = whole("decodes_per_chain", decodes_per_chain, 1)
    if decodes_per_chain > 1 and temperature == 0:
        raise ConfigError(greedy_repeats("decodes_per_chain", decodes_per_chain, "temperature"))
    asked = (("num_latents", num_latents), ("latent_dim", latent_dim))
    sizes = {key: whole(key, value, 1) for key, value in asked if value is not None}
    if latents_per_step is not None:
        latents_per_step = whole("latents_per_step", latents_per_step, 1)
    made_task = host.create("task", task, {} if task_kwargs is None else task_kwargs)
    made_reward = _reward(host, reward)
    model = _decoder(host, decoder)
    made_space = _space(host, space, model, sizes, made_task)
    per_step = latents_per_step or made_space.num_latents
    if made_space.num_latents % per_step:
        raise ConfigError(f"latents_per_step: expected a divisor of {made_space.num_latents}, got {per_step}")
    return Engine(
        decoder=model,
        space=made_space,
        task=made_task,
        reward=made_reward,
        latents_per_step=per_step,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        decodes_per_chain=decodes_per_chain,
        judge_seconds=judge_seconds,
    )


ARGUMENTS = (
    *(set(inspect.signature(build_engine).parameters) - {"unknown"}),
    "split",
    "num_envs",
    "engine",
    "autoreset_mode",
)
"""What an environment is made with."""


def _reward(host: PluginHost, given: Any) -> Any:
    if isinstance(given, str):
        return host.create("reward", given)
    if isinstance(given, Mapping):
        settings = dict(given)
        return host.create("reward", settings.pop("name", None), settings)
    return _part("reward", given, callable(given))


def _part(kind: str, given: Any, fits: bool) -> Any:
    """A part that was given as it is.

    Raises:
        ConfigError: it is none.
    """
    if not fits:
        raise ConfigError(f"{kind}: expected a name, a table with a name, or a {kind}, got {shown(given)}")
    return given


def _space(host: PluginHost, given: Any, decoder: Decoder, sizes: dict[str, int], task: Any) -> Space:
    if not isinstance(given, str | Mapping):
        return _part("space", given, hasattr(given, "inject"))  # type: ignore[no-any-return]
    settings = {"name": given} if isinstance(given, str) else dict(given)
    name = settings.pop("name", "kv")
    if isinstance(name, str) and name not in host.names("space") and is_folder(name):
        return load_space(host, expanded(name), decoder, {**settings, **sizes})
    space: Space = host.create("space", name, {**settings, **sizes}, decoder=decoder)
    space.calibrate(calibration_questions(task))
    return space
