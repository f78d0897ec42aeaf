"""Made-up inputs of the shapes that parts receive."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlr_core.batch import StepBatch
from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch
from dlr_core.records import PromptCache

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

    num_latents, latent_dim = 2, 3

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.anchor_ids: list[int] = []
        self.pending_ids: list[int] = [*decoder.encode("=")[:1]] * self.num_latents
        generator = torch.Generator().manual_seed(3)
        table = decoder.embedding_table()
        chart = torch.randn(self.latent_dim, table.shape[1], generator=generator) * float(table.float().std())
        self.chart_DH = chart.to(table)

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Move the pending embeddings."""
        return replace(cache, pending_NPH=cache.pending_NPH + actions_NTD.to(self.chart_DH.dtype) @ self.chart_DH)


def batch(correct: list[list[float]]) -> tuple[StepBatch, Tensor]:
    """A step of three questions, four chains each, two decoded; and the leaf that its gradients flow to.

    Completions' log-probabilities are made up, differentiable in the latents.
    """
    states_BSH, mask_BS = states()
    leaf = (0.5 * noise(len(TEXTS) * GROUP, seed=2)).requires_grad_()
    correct_BK = torch.tensor(correct)

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
        chosen_BK=torch.tensor([[0, 2]] * len(TEXTS)),
        inclusion_BG=torch.full((len(TEXTS), GROUP), 0.5),
        predictions_BG=torch.zeros(len(TEXTS), GROUP),
        rewards_BK=correct_BK,
        correct_BK=correct_BK,
        repeat_BK=torch.zeros_like(correct_BK, dtype=torch.bool),
        policy_log_prob_BGT=log_prob_BGT,
        old_log_prob_BGT=log_prob_BGT().detach(),
        weighted_completion_log_prob=weighted,
        weighted_gold_log_prob=weighted,
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
