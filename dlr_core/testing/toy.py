"""Made-up inputs of the shapes that parts receive."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlr_core.batch import MainModel, StepBatch
from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch, Space
from dlr_core.records import Completions, PromptCache

HIDDEN, LATENTS, WIDTH, GROUP = 12, 3, 4, 4
SHAPE = {"hidden_size": HIDDEN, "num_latents": LATENTS, "latent_dim": WIDTH}
TEXTS = ["how many", "how much", "how often"]


def states(rows: int = 3, length: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """States (B, S, H) and a mask (B, S) with padding on the left of the later rows."""
    generator = torch.Generator().manual_seed(seed)
    mask_BS = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        mask_BS[row, :row] = 0
    return torch.randn(rows, length, HIDDEN, generator=generator), mask_BS


def noise(rows: int, seed: int = 1) -> Tensor:
    """Standard normal noise (N, T, D)."""
    return torch.randn(rows, LATENTS, WIDTH, generator=torch.Generator().manual_seed(seed))


class Nudge:
    """A smallest latent space: every latent moves one pending token's embedding along random directions."""

    def __init__(self, decoder: Any, num_latents: int = 2, latent_dim: int = 3) -> None:
        self.decoder, self.num_latents, self.latent_dim = decoder, num_latents, latent_dim
        self.anchor_ids: list[int] = []
        self.pending_ids: list[int] = [*decoder.encode("=")[:1]] * self.num_latents
        generator = torch.Generator().manual_seed(3)
        table = decoder.embedding_table()
        chart = torch.randn(self.latent_dim, table.shape[1], generator=generator) * float(table.float().std())
        self.chart_DH = chart.to(table)

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Move the pending embeddings."""
        return replace(cache, pending_NPH=cache.pending_NPH + actions_NTD.to(self.chart_DH.dtype) @ self.chart_DH)

    def observe(self, cache: PromptCache, actions_NtD: Tensor) -> Tensor:
        """State at the first pending token that has not been moved yet."""
        given = nn.functional.pad(actions_NtD, (0, 0, 0, 1)).to(self.chart_DH.dtype)
        fed = cache.pending_NPH[:, : given.shape[1]] + given @ self.chart_DH
        seen: Tensor = self.decoder.extend(cache, fed)[:, -1]
        return seen


def main_model(decoder: Any, right: list[bool]) -> MainModel:
    """A frozen model on the three questions, under :class:`Nudge`; every answer to those in ``right`` is right."""
    space = Nudge(decoder, LATENTS, WIDTH)
    cache = decoder.prefill(TEXTS, space.anchor_ids, space.pending_ids, space.num_latents)

    def verify(rows_N: Sequence[int], completions: Completions) -> Tensor:
        return torch.tensor([float(right[row]) for row in rows_N], device=decoder.device)

    rows_B = torch.arange(len(TEXTS), device=decoder.device)
    generator = torch.Generator().manual_seed(4)
    return MainModel(decoder, cast(Space, space), TEXTS, cache, rows_B, 4, verify, generator)


def batch(correct: list[list[float]], decoder: Any = None) -> tuple[StepBatch, Tensor]:
    """A step of three questions, four chains each, two decoded; and the leaf that its gradients flow to.

    Completions' log-probabilities are made up, differentiable in the latents; with a ``decoder`` the frozen model can
    be asked, and is right about the questions that have a correct chain.
    """
    device = decoder.device if decoder else torch.device("cpu")
    states_BSH, mask_BS = (tensor.to(device) for tensor in states())
    leaf = (0.5 * noise(len(TEXTS) * GROUP, seed=2)).to(device).requires_grad_()
    correct_BK = torch.tensor(correct, device=device)

    def log_prob_BGT() -> Tensor:
        grouped: Tensor = -(leaf**2).sum(-1).unflatten(0, (len(TEXTS), GROUP))
        return grouped

    def weighted(latents_NTD: Tensor, weights_BK: Tensor) -> Tensor:
        return (-((latents_NTD - 0.2) ** 2).sum((1, 2)) * weights_BK.flatten()).sum()

    made = StepBatch(
        chains=ChainBatch(leaf.detach(), TanhGaussian(leaf, torch.zeros_like(leaf)), leaf),
        states_BSH=states_BSH,
        mask_BS=mask_BS,
        questions=TEXTS,
        chosen_BK=torch.tensor([[0, 2]] * len(TEXTS), device=device),
        inclusion_BG=torch.full((len(TEXTS), GROUP), 0.5, device=device),
        predictions_BG=torch.zeros(len(TEXTS), GROUP, device=device),
        rewards_BK=correct_BK,
        correct_BK=correct_BK,
        repeat_BK=torch.zeros_like(correct_BK, dtype=torch.bool),
        policy_log_prob_BGT=log_prob_BGT,
        old_log_prob_BGT=log_prob_BGT().detach(),
        weighted_completion_log_prob=weighted,
        weighted_gold_log_prob=weighted,
        main=main_model(decoder, correct_BK.any(1).tolist()) if decoder else None,
    )
    return made, leaf


def metrics(steps: int) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl, with what loggers get besides: the first is a warm start's, which has no reward."""
    rows: list[dict[str, Any]] = [
        {"step": 1, "phase": "warmstart", "reward": None, "loss": 2.0, "seconds": 0.5, "phases": {"update": 0.5}}
    ]
    for step in range(2, steps + 1):
        row = {"step": step, "phase": "rl", "reward": 1.0 / step, "loss": 1.0, "seconds": 0.5}
        rows.append({**row, "phases": {"rollout": 0.25, "update": 0.25}})
    return rows
