"""Bidirectional contrast: questions and their correct chains find each other, and correct chains outrank wrong ones."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, logsigmoid

from dlr_core.batch import StepBatch


def info_nce(scores_BN: Tensor, owner_N: Tensor, correct_N: Tensor, texts: Sequence[str]) -> Tensor:
    """Two-way InfoNCE over decoded chains.

    Question → chain: for each correct chain p of question b, −log e^{s_bp} / (e^{s_bp} + Σ e^{s_bn}) over the chains n
    of *other question texts*; averaged over the question's correct chains, then over questions that have one.
    Chain → question: for each such p the same over the other question texts, averaged likewise.

    Args:
        scores_BN: similarity of question b and chain n, divided by the temperature.
        owner_N: which question each chain answers.
        correct_N: 1.0 for correct chains.
        texts: the B question texts; equal texts are no negatives of each other.

    Returns:
        A scalar in nats; zero if nothing is correct or only one text is present.
    """
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    label_B = torch.tensor([number[text] for text in texts], device=scores_BN.device)
    label_N = label_B[owner_N]
    positive = correct_N.bool()
    if len(number) < 2 or not bool(positive.any()):
        return scores_BN.sum() * 0.0
    own_N = scores_BN[owner_N, torch.arange(len(owner_N), device=scores_BN.device)]
    other_chain_BN = scores_BN.masked_fill(label_B[:, None] == label_N[None, :], -torch.inf)
    forward_N = torch.logaddexp(own_N, other_chain_BN.logsumexp(1)[owner_N]) - own_N
    first = torch.tensor([texts.index(text) for text in number], device=scores_BN.device)
    other_text_UN = scores_BN[first].masked_fill(label_B[first][:, None] == label_N[None, :], -torch.inf)
    backward_N = torch.logaddexp(own_N, other_text_UN.logsumexp(0)) - own_N
    owners = owner_N[positive].unique()
    per_question = [(forward_N + backward_N)[positive & (owner_N == b)].mean() for b in owners]
    return torch.stack(per_question).mean()


class Bidirectional(nn.Module):
    """Question ↔ chain InfoNCE, plus correct-over-wrong ranking of decoded chains within a group."""

    class Options(BaseModel):
        """Settings of ``bidirectional``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(0.02, ge=0, description="Weight of the whole objective in the loss.")
        rank_weight: float = Field(1.0, ge=0, description="Weight of the ranking term within it.")
        temperature: float = Field(0.2, gt=0, description="Temperature of the cosine similarities.")
        beta: float = Field(1.0, gt=0, description="Sharpness of the ranking term.")
        width: int = Field(64, gt=0, description="Width of the shared projection.")

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.options = options
        self.read_question = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, options.width))
        self.read_chain = nn.Linear(num_latents * latent_dim, options.width)

    def forward(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """The weighted objective; its two terms are logged in nats."""
        pre_NTD = batch.chains.pre_NTD[batch.chosen_rows_N]
        question_BW = self.read_question(batch.states_BSH[:, -1])
        chain_NW = self.read_chain(pre_NTD.flatten(1))
        scores_BN = cosine_similarity(question_BW[:, None], chain_NW[None], dim=-1) / self.options.temperature
        decodes = batch.chosen_BK.shape[1]
        owner_N = torch.arange(len(batch.questions), device=pre_NTD.device).repeat_interleave(decodes)
        match = info_nce(scores_BN, owner_N, batch.correct_BK.flatten(), batch.questions)
        rank = self.ranking(batch, pre_NTD.shape[1] * pre_NTD.shape[2])
        total = self.options.weight * (match + self.options.rank_weight * rank)
        return total, {"match": float(match.detach()), "rank": float(rank.detach())}

    def ranking(self, batch: StepBatch, size: int) -> Tensor:
        """Mean −log σ(β[log π(u⁺|x) − log π(u⁻|x)]/(T·D)) over decoded correct/wrong pairs of a group, u held fixed."""
        log_prob_BK = batch.policy_log_prob_BGT().sum(-1).gather(1, batch.chosen_BK)
        gap_BKK = (log_prob_BK[:, :, None] - log_prob_BK[:, None, :]) * (self.options.beta / size)
        pair_BKK = batch.correct_BK[:, :, None] * (1.0 - batch.correct_BK[:, None, :])
        return -(logsigmoid(gap_BKK) * pair_BKK).sum() / pair_BKK.sum().clamp(min=1.0)
