"""From the keyword arguments of an environment to its engine."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dlr_core.artefact import load_space
from dlr_core.config import greedy_repeats
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost
from dlr_core.protocols import Decoder, Space
from dlr_core.questions import calibration_questions
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
        return given  # type: ignore[no-any-return]
    settings = {"model": given} if isinstance(given, str) else dict(given)
    name = settings.pop("name", "hf")
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

    Raises:
        ConfigError: an unknown name or a bad option.
    """
    host = host or default_host()
    if task is None:
        raise ConfigError('this environment needs a task, for example task="reasoning-gym:gcd"')
    if temperature < 0 or max_new_tokens < 1:
        raise ConfigError("expected temperature >= 0 and max_new_tokens >= 1")
    if decodes_per_chain < 1:
        raise ConfigError(f"decodes_per_chain: expected at least 1, got {decodes_per_chain}")
    if decodes_per_chain > 1 and temperature == 0:
        raise ConfigError(greedy_repeats("decodes_per_chain", decodes_per_chain, "temperature"))
    made_task = host.create("task", task, task_kwargs or {})
    made_reward = _component(host, "reward", reward)
    model = _decoder(host, decoder)
    sizes = {key: value for key, value in (("num_latents", num_latents), ("latent_dim", latent_dim)) if value}
    made_space = _space(host, space, model, sizes, made_task)
    per_step = latents_per_step or made_space.num_latents
    if per_step < 1 or made_space.num_latents % per_step:
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


def _component(host: PluginHost, kind: str, given: Any) -> Any:
    if isinstance(given, str):
        return host.create(kind, given)
    if isinstance(given, Mapping):
        settings = dict(given)
        return host.create(kind, settings.pop("name"), settings)
    return given


def _space(host: PluginHost, given: Any, decoder: Decoder, sizes: dict[str, int], task: Any) -> Space:
    if not isinstance(given, str | Mapping):
        return given  # type: ignore[no-any-return]
    settings = {"name": given} if isinstance(given, str) else dict(given)
    name = settings.pop("name", "kv")
    folder = Path(name).expanduser()
    if name not in host.names("space") and folder.is_dir():
        return load_space(host, folder, decoder, {**settings, **sizes})
    space: Space = host.create("space", name, {**settings, **sizes}, decoder=decoder)
    space.calibrate(calibration_questions(task))
    return space
