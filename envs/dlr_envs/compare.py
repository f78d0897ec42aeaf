"""Anybody's policy beside the controls, on held-out questions: what the example scripts print before and after."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlr_core.errors import ActionError
from dlr_core.evaluate import Evaluator
from dlr_core.host import PluginHost
from dlr_core.questions import distinct_items
from dlr_core.records import Item
from dlr_core.splits import Split
from dlr_core.stats import bootstrap_mean
from dlr_envs.build import default_host

Act = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Observations (N, H) to flat actions (N, latents_per_step·D), without exploration noise."""


def compare_policy(
    env: Any,
    act: Act,
    *,
    begin: Callable[[], object] | None = None,
    questions: int = 100,
    split: Split = "test",
    seed: int = 0,
    host: PluginHost | None = None,
) -> dict[str, dict[str, Any]]:
    """Greedy accuracy of a policy and of what it must beat, on the same distinct questions.

    Args:
        env: a latent environment, single or vector, with episodes of one step or of several.
        act: the policy. Called once per step of an episode, for many questions at once; the rows keep their order.
        begin: called before the first step of every batch of episodes: a policy with a memory forgets here.
        questions: how many; fewer if the task has fewer.
        split: ``test`` or ``validation``: neither is ever trained on.
        seed: which questions, and of the random latents.
        host: where controls are registered.

    Returns:
        ``{row: {"accuracy", "ci"}}`` for ``anchor`` (a = 0), ``random``, ``mean``, ``shuffled`` and ``policy``.

    Raises:
        ActionError: the policy's actions have the wrong shape.
    """
    engine = env.unwrapped.engine
    evaluator = Evaluator(engine)
    items = distinct_items(engine.task, split, questions, seed)
    written = []
    for start in range(0, len(items), evaluator.batch):
        if begin is not None:
            begin()
        written.append(_chains(engine, act, items[start : start + evaluator.batch]))
    latents = np.concatenate(written)
    host, rng = host or default_host(), np.random.default_rng(seed)
    chains = {name: host.create("control", control)(latents, rng) for name, control in CONTROLS.items()}
    rows = evaluator.under_each(items, {**chains, "policy": latents})
    return {
        name: {"accuracy": float(answers.correct_N.mean()), "ci": list(bootstrap_mean(answers.correct_N))}
        for name, answers in rows.items()
    }


CONTROLS = {"anchor": "zero", "random": "random", "mean": "mean", "shuffled": "shuffled"}


@torch.no_grad()
def _chains(engine: Any, act: Act, items: Sequence[Item]) -> NDArray[np.float32]:
    """What a policy writes (N, T, D) when it is shown what ``reset`` and ``step`` of an environment would show."""
    space, device = engine.space, engine.decoder.device
    cache = engine.prefill([item.question for item in items])
    latents_NtD = torch.zeros(len(items), 0, space.latent_dim, device=device)
    expected = (len(items), engine.action_width)
    while latents_NtD.shape[1] < space.num_latents:
        actions = np.asarray(act(space.observe(cache, latents_NtD).float().cpu().numpy().copy()))
        if actions.shape != expected:
            raise ActionError(f"expected actions of shape {expected}, got {actions.shape}")
        taken = torch.as_tensor(actions.clip(-1, 1).astype(np.float32), device=device)
        latents_NtD = torch.cat([latents_NtD, taken.view(len(items), -1, space.latent_dim)], 1)
    written: NDArray[np.float32] = latents_NtD.cpu().numpy()
    return written


def as_text(rows: dict[str, dict[str, Any]]) -> str:
    """One line: right %, with 95 % intervals."""
    return ", ".join(
        f"{name} {100 * row['accuracy']:.1f} [{100 * row['ci'][0]:.1f}, {100 * row['ci'][1]:.1f}]"
        for name, row in rows.items()
    )
