"""How far latents may move the frozen model before it stops answering: choosing a space's radius."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dlr_core.evaluate import Evaluator
from dlr_core.questions import distinct_items
from dlr_core.records import Sample

RADII = (8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1)


def fit_radius(engine: Any, *, count: int, initial_scale: float, report: Callable[[str], None]) -> dict[str, Any]:
    """Set the engine's space to the largest radius at which uniform actions keep half of the anchor's format rate.

    Uniform actions matter because SAC warms up with them and PPO's Gaussian is clipped at the box.

    Args:
        engine: an environment's engine; its space's options are replaced.
        count: distinct training questions to measure on.
        initial_scale: σ₀ of the policy whose rates are reported too.
        report: called with what is being done.

    Returns:
        ``{"radius", "rows": {"anchor" | "initial policy" | "uniform": {"format", "correct"}}, "tried": {radius:
        format rate}}``.
    """
    evaluator, space = Evaluator(engine), engine.space
    items = distinct_items(engine.task, "train", count)
    rng = np.random.default_rng(0)
    shape = (len(items), space.num_latents, space.latent_dim)
    uniform = rng.uniform(-1, 1, shape).astype(np.float32)
    report("measuring the anchor …")
    anchor = _rates(evaluator.under_latents(items, np.zeros(shape, np.float32)))
    tried: dict[float, float] = {}
    rates = anchor
    for radius in RADII:
        report(f"measuring radius {radius} …")
        space.options = space.options.model_copy(update={"radius": radius})
        rates = _rates(evaluator.under_latents(items, uniform))
        tried[radius] = rates["format"]
        if rates["format"] >= 0.5 * anchor["format"]:
            break
    policy = np.tanh(initial_scale * rng.standard_normal(shape)).astype(np.float32)
    rows = {
        "anchor": anchor,
        "initial policy": _rates(evaluator.under_latents(items, policy)),
        "uniform": rates,
    }
    return {"radius": space.options.radius, "rows": rows, "tried": {str(k): v for k, v in tried.items()}}


def _rates(samples: list[Sample]) -> dict[str, float]:
    count = max(len(samples), 1)
    return {
        "format": sum(s.format for s in samples) / count,
        "correct": sum(s.correct for s in samples) / count,
    }
