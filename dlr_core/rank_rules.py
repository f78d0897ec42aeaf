"""What of a run can be split over ranks. What would give another result than one rank's is refused, by name."""

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from dlr_core.config import RunConfig
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost
from dlr_core.ranks import Ranks

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
"""Accelerate's mixed precision, and what the frozen model is held in for it."""
ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
UNUSED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def for_ranks(config: RunConfig, host: PluginHost, size: int) -> RunConfig:
    """The settings as so many ranks take them: with what Accelerate's own settings ask of a run.

    Its mixed precision is the frozen model's: ``decoder.dtype``, where that is ``auto``. What learns stays float32. Its
    gradient accumulation is ``batch.accumulate``.

    Raises:
        ConfigError: with everything that does not go with ranks, or that Accelerate asks for in vain.
    """
    if size == 1:
        return config
    problems = [*_of_accelerate(config), *_of_settings(config, host, size)]
    if problems:
        raise ConfigError(*problems)
    dtype = DTYPES.get(_asked("ACCELERATE_MIXED_PRECISION", "no"), config.decoder.dtype)
    accumulate = max(config.batch.accumulate, int(_asked(ACCUMULATION, "1")))
    return config.model_copy(
        update={
            "decoder": config.decoder.model_copy(update={"dtype": dtype}),
            "batch": config.batch.model_copy(update={"accumulate": accumulate}),
        }
    )


def _asked(variable: str, usual: str) -> str:
    """What Accelerate's launcher has put into the environment."""
    return os.environ.get(variable, usual)


def _of_accelerate(config: RunConfig) -> list[str]:
    found = []
    asked, dtype = _asked("ACCELERATE_MIXED_PRECISION", "no"), config.decoder.dtype
    if asked != "no" and (asked not in DTYPES or dtype not in ("auto", DTYPES[asked])):
        fits = f"{DTYPES[asked]} or auto" if asked in DTYPES else f"another: {', '.join(DTYPES)}, or no"
        found.append(f"accelerate's mixed_precision={asked} with decoder.dtype={dtype}: expected {fits}")
    steps, own = _asked(ACCUMULATION, "1"), config.batch.accumulate
    if not steps.isdecimal() or int(steps) < 1 or (own > 1 and steps not in ("1", str(own))):
        fits = "a whole number above 0" if own == 1 else f"1 or {own}, as batch.accumulate"
        found.append(f"accelerate's gradient_accumulation_steps: expected {fits}, got {steps}")
    elif int(steps) > 1 and config.batch.epochs > 1:
        found.append(
            f"accelerate's gradient_accumulation_steps={steps} with batch.epochs={config.batch.epochs}: expected 1"
        )
    for variable, name in UNUSED.items():
        if _asked(variable, "").lower() in ("1", "true"):
            found.append(f"accelerate's {name}: every rank holds the whole frozen model; launch with --multi_gpu")
    return found


def _of_settings(config: RunConfig, host: PluginHost, size: int) -> list[str]:
    found = []
    if config.batch.questions % size:
        found.append(f"batch.questions: expected a multiple of the {size} ranks, got {config.batch.questions}")
    if config.decoder.options.get("device_map", "none") != "none":
        found.append(
            "decoder.device_map spreads one model over all devices, and every rank holds one: train it on one rank"
        )
    if 0 < config.replay.chains < size:
        found.append(f"replay.chains: expected 0, or at least one for each of the {size} ranks")
    if config.replay.blur:
        found.append("replay.blur: expected 0 on several ranks: its noise is measured over all replayed questions")
    for kind in ("contrastive", "estimator"):
        name = getattr(config, kind).name
        if getattr(host.find(kind, name).factory, "asks_model", False):
            found.append(f"{kind} {name!r} asks the frozen model about all questions of a step: train it on one rank")
    return found


def share_parts(ranks: Ranks, *, estimator: Any, reward: Any, scorer: Any) -> None:
    """Let a scorer learn from all ranks' outcomes, and refuse parts that would learn apart from each other.

    A scorer's ``optimizer`` averages the gradients of what it trains over the ranks before each of its steps.

    Raises:
        ConfigError: an estimator or a reward keeps a state of its own, or a scorer has one without an ``optimizer``.
    """
    if ranks.size == 1:
        return
    problems = [
        f"{what} {type(part).__name__} keeps a state of its own, and each rank would keep another: train it on one rank"
        for what, part in (("estimator", estimator), ("reward", reward))
        if _state(part)
    ]
    optimizer = getattr(scorer, "optimizer", None)
    if optimizer is None and _state(scorer):
        problems.append(f"scorer {type(scorer).__name__} learns without an `optimizer`: train it on one rank")
    if problems:
        raise ConfigError(*problems)
    if optimizer is not None:
        parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.register_step_pre_hook(lambda *_: ranks.average(parameters))


def _state(part: Any) -> Mapping[str, Any]:
    """What a part would have a checkpoint keep."""
    kept: Mapping[str, Any] = part.state_dict() if hasattr(part, "state_dict") else {}
    return kept
