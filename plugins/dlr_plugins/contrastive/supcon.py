"""Supervised contrast among a step's decoded chains (Khosla et al. 2020, eq. 2)."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from dlr_core.batch import StepBatch


def supcon(scores_NN: Tensor, label_N: Tensor, correct_N: Tensor) -> Tensor:
    """Mean over anchors a of −1/|P(a)| Σ_p log(e^{s_ap} / Σ_{n≠a} e^{s_an}).

    Anchors are correct chains that have a positive: another correct chain with the same label.

    Args:
        scores_NN: similarities divided by the temperature.
        label_N: which question text each chain answers.
        correct_N: 1.0 for correct chains.

    Returns:
        A scalar in nats; zero where no chain has a positive.
    """
    right = correct_N.bool()
    self_NN = torch.eye(len(label_N), dtype=torch.bool, device=scores_NN.device)
    positive_NN = (label_N[:, None] == label_N[None]) & right[:, None] & right[None] & ~self_NN
    anchors = positive_NN.any(1)
    if not bool(anchors.any()):
        return scores_NN.sum() * 0.0
    log_share_NN = scores_NN - scores_NN.masked_fill(self_NN, -torch.inf).logsumexp(1, keepdim=True)
    per_anchor = (log_share_NN * positive_NN).sum(1)[anchors] / positive_NN.sum(1)[anchors]
    return -per_anchor.mean()


class SupCon(nn.Module):
    """Correct chains of one question attract each other; wrong ones and other questions' repel them."""

    class Options(BaseModel):
        """Settings of ``supcon``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(0.02, ge=0, description="Weight in the loss.")
        temperature: float = Field(0.2, gt=0, description="Temperature of the cosine similarities.")
        width: int = Field(64, gt=0, description="Width of the projection.")

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.options = options
        self.read_chain = nn.Linear(num_latents * latent_dim, options.width)

    def forward(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """The weighted objective; logged in nats."""
        pre_NTD = batch.chains.pre_NTD[batch.chosen_rows_N]
        unit_NW = normalize(self.read_chain(pre_NTD.flatten(1)), dim=-1)
        label_N = labels(batch.questions, batch.chosen_BK.shape[1]).to(pre_NTD.device)
        loss = supcon(unit_NW @ unit_NW.T / self.options.temperature, label_N, batch.correct_BK.flatten())
        return self.options.weight * loss, {"supcon": float(loss.detach())}


def labels(questions: Sequence[str], decodes: int) -> Tensor:
    """The number of each decoded chain's question text; equal texts share one."""
    number = {text: i for i, text in enumerate(dict.fromkeys(questions))}
    return torch.tensor([number[text] for text in questions]).repeat_interleave(decodes)
