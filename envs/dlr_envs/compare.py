"""Anybody's policy beside the controls, on held-out questions: what the example scripts print before and after."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlr_core.errors import ConfigError
from dlr_core.evaluate import Evaluator
from dlr_core.host import PluginHost
from dlr_core.questions import distinct_items
from dlr_core.splits import Split
from dlr_core.stats import bootstrap_mean
from dlr_envs.build import default_host

Act = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Observations (N, H) to flat actions (N, T·D), without exploration noise."""


def compare_policy(
    env: Any, act: Act, *, questions: int = 100, split: Split = "test", seed: int = 0, host: PluginHost | None = None
) -> dict[str, dict[str, Any]]:
    """Greedy accuracy of a policy and of what it must beat, on the same distinct questions.

    Args:
        env: a latent environment with one-step episodes (``latents_per_step`` = T), single or vector.
        act: the policy.
        questions: how many; fewer if the task has fewer.
        split: ``test`` or ``validation``: neither is ever trained on.
        seed: which questions, and of the random latents.
        host: where controls are registered.

    Returns:
        ``{row: {"accuracy", "ci"}}`` for ``anchor`` (a = 0), ``random``, ``mean``, ``shuffled`` and ``policy``.

    Raises:
        ConfigError: the environment's episodes have several steps.
    """
    engine = env.unwrapped.engine
    space, evaluator = engine.space, Evaluator(engine)
    if engine.latents_per_step != space.num_latents:
        raise ConfigError("compare_policy needs one-step episodes: latents_per_step must be num_latents")
    items = distinct_items(engine.task, split, questions, seed)
    actions = np.concatenate([
        np.asarray(act(_observe(engine, [item.question for item in items[start : start + evaluator.batch]])))
        for start in range(0, len(items), evaluator.batch)
    ])  # fmt: skip
    latents = actions.clip(-1, 1).astype(np.float32).reshape(len(items), space.num_latents, space.latent_dim)
    host, rng = host or default_host(), np.random.default_rng(seed)
    chains = {name: host.create("control", control)(latents, rng) for name, control in CONTROLS.items()}
    rows = evaluator.under_each(items, {**chains, "policy": latents})
    return {
        name: {"accuracy": float(answers.correct_N.mean()), "ci": list(bootstrap_mean(answers.correct_N))}
        for name, answers in rows.items()
    }


CONTROLS = {"anchor": "zero", "random": "random", "mean": "mean", "shuffled": "shuffled"}


@torch.no_grad()
def _observe(engine: Any, questions: list[str]) -> NDArray[np.float32]:
    """First observations of questions, as ``reset`` gives them."""
    cache = engine.prefill(questions)
    zeros = torch.zeros(cache.rows, 0, engine.space.latent_dim, device=engine.decoder.device)
    found: NDArray[np.float32] = engine.space.observe(cache, zeros).float().cpu().numpy()
    return found


def as_text(rows: dict[str, dict[str, Any]]) -> str:
    """One line: right %, with 95 % intervals."""
    return ", ".join(
        f"{name} {100 * row['accuracy']:.1f} [{100 * row['ci'][0]:.1f}, {100 * row['ci'][1]:.1f}]"
        for name, row in rows.items()
    )
