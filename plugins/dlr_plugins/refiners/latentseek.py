"""Latents of one question improved while it is being answered, by the frozen model's own opinion of its answers.

LatentSeek (Li et al. 2025, arXiv 2505.13308): decode; ask the same model whether that answer is right; move the latents
by the policy gradient R·∇log p(answer | latents), R ≤ 0 being how far it is from convinced; repeat until it is. There
the latents are the first hidden states of a written chain of thought, and four prompts judge by writing verdicts; here
they are an assistant's chain, and one prompt judges by the probability of "Yes" against "No". The paper returns the
last answer; here the chain is kept whose answer convinced the most, its beginning included. No gold answer is read.
"""

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dlr_core.protocols import Decoder, Space

VERDICT = (
    "Question: {question}\nProposed answer: {answer}\nIs the proposed answer correct and complete? Answer Yes or No."
)


class LatentSeek:
    """Policy gradient on one question's latents, rewarded by the frozen model's own verdict (no gold answer)."""

    needs_gradient = True

    class Options(BaseModel):
        """Settings of ``latentseek``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        steps: int = Field(5, ge=0, description="Updates at most; each costs a decode, a verdict and a gradient.")
        rate: float = Field(0.03, gt=0, description="Learning rate (Adam) of u = atanh(a).")
        satisfied: float = Field(0.8, gt=0, le=1, description="Probability of Yes at which a question is left alone.")

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(
        self, decoder: Decoder, space: Space, questions: Sequence[str], latents_NTD: Tensor, max_new_tokens: int
    ) -> Tensor:
        """Latents whose answers convince the model more, or the given ones; in (-1, 1)."""
        cache = decoder.prefill(questions, space.anchor_ids, space.pending_ids, space.num_latents)
        pre_NTD = latents_NTD.detach().clamp(-1 + 1e-5, 1 - 1e-5).atanh()
        optimizer = torch.optim.Adam([pre_NTD], lr=self.options.rate)
        best_NTD = latents_NTD.detach().clone()
        best_N = torch.full((len(questions),), -1.0, device=best_NTD.device)
        for step in range(self.options.steps + 1):
            with torch.no_grad():
                done = decoder.decode(space.inject(cache, best_NTD if step == 0 else pre_NTD.tanh()), max_new_tokens)
            belief_N = self.belief(decoder, questions, done.texts)
            better_N = belief_N > best_N
            if step:
                best_NTD = torch.where(better_N[:, None, None], pre_NTD.tanh(), best_NTD)
            best_N = best_N.maximum(belief_N)
            rows_M = (best_N < self.options.satisfied).nonzero()[:, 0]
            if step == self.options.steps or not len(rows_M):
                break
            leaf_MTD = pre_NTD[rows_M].requires_grad_()
            ready = space.inject(cache.select(rows_M), leaf_MTD.tanh())
            log_prob_M = decoder.log_prob(ready, done.ids_NL[rows_M], done.mask_NL[rows_M])
            # Towards what convinces means away from what does not: R = belief − 1.
            (slope,) = torch.autograd.grad(((belief_N[rows_M] - 1.0) * log_prob_M).sum(), leaf_MTD)
            kept_NTD = pre_NTD.clone()
            pre_NTD.grad = torch.zeros_like(pre_NTD).index_copy_(0, rows_M, -slope)
            optimizer.step()
            kept_NTD[rows_M] = pre_NTD[rows_M]  # Adam's momentum would go on moving the others
            pre_NTD.copy_(kept_NTD)
        return best_NTD

    @torch.no_grad()
    def belief(self, decoder: Decoder, questions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """The plain frozen model's probability (N,) of Yes against No, asked whether an answer is right."""
        asked = [
            VERDICT.format(question=question, answer=answer.strip() or "(nothing)")
            for question, answer in zip(questions, answers, strict=True)
        ]
        cache = decoder.prefill(asked, [], [], 0)
        mask_N1 = torch.ones(len(asked), 1, device=decoder.device)
        yes_N, no_N = (
            decoder.log_prob(cache, torch.full_like(mask_N1, decoder.encode(word)[0], dtype=torch.long), mask_N1)
            for word in ("Yes", "No")
        )
        return torch.sigmoid(yes_N - no_N)
