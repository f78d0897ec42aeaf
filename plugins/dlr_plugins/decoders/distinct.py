"""Several *distinct* completions of a prompt: tokens sampled without replacement, by stochastic beam search.

Kool, van Hoof & Welling 2019, "Stochastic Beams and Where to Find Them" (arXiv 1903.06059): of all completions, each
with its log-probability perturbed by Gumbel noise, the ``count`` greatest are a sample without replacement. They are
found top down, as the noise of a beginning is the greatest of all that goes on from it. Sampling with replacement
writes the same few likely completions again and again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlr_plugins.decoders.drafting import Draft, Stepper

CONTINUATIONS = 32
"""Likeliest next tokens that a hypothesis goes on with (no fewer than completions are wanted)."""
ROWS = 16
"""Whose log-probabilities of the whole vocabulary exist at the same time."""


@dataclass(frozen=True)
class Hypothesis:
    """A completion, or what one begins with."""

    ids: tuple[int, ...] = ()
    log_prob: float = 0.0
    noisy: float = 0.0
    """Log-probability with its noise: what completions of one prompt are ranked by."""
    row: int = 0
    """The stepper's row that it goes on from; of no meaning once it has ended."""
    ended: bool = False


def continued(
    hypothesis: Hypothesis,
    log_prob_C: NDArray[np.float64],
    ids_C: Sequence[int],
    gumbel_C: NDArray[np.float64],
    ends: frozenset[int],
) -> list[Hypothesis]:
    """A hypothesis, with each of C next tokens, their noise drawn so that the greatest has its own.

    Args:
        hypothesis: what they follow.
        log_prob_C: of each token after it.
        ids_C: the tokens.
        gumbel_C: independent standard Gumbel draws.
        ends: tokens that end a completion.
    """
    total_C = hypothesis.log_prob + log_prob_C
    free_C = total_C + gumbel_C
    with np.errstate(divide="ignore"):  # the greatest: log(1 - 1)
        over_C = hypothesis.noisy - free_C + np.log1p(-np.exp(free_C - free_C.max()))
    noisy_C = hypothesis.noisy - np.maximum(over_C, 0.0) - np.log1p(np.exp(-np.abs(over_C)))
    parts = zip(ids_C, total_C.tolist(), noisy_C.tolist(), strict=True)
    return [
        Hypothesis((*hypothesis.ids, token), total, noisy, hypothesis.row, token in ends)
        for token, total, noisy in parts
    ]


def write_distinct(
    draft: Draft,
    stepper: Stepper,
    pending_NPH: Tensor,
    counts: Sequence[int],
    openings: Sequence[Sequence[int]],
    generators: Sequence[np.random.Generator],
    embed: Callable[[Tensor], Tensor],
    end_ids: Tensor,
) -> tuple[int, int]:
    """Complete each of N prompts in several ways; returns how many positions were fed, and how many were read.

    Args:
        draft: of as many rows as ``counts`` are together, which are filled prompt by prompt, the first to be drawn
            first.
        stepper: holds the N prompts.
        pending_NPH: what each is fed first.
        counts: completions of each.
        openings: tokens that each prompt's completions begin with.
        generators: one per prompt.
        embed: token ids to input embeddings.
        end_ids: tokens that end a completion.
    """
    ends, wanted = frozenset(end_ids.tolist()), tuple(zip(openings, generators, counts, strict=True))
    beams = [[Hypothesis(row=row)] for row in range(len(counts))]
    embeds, fed, read = pending_NPH, 0, 0
    for step in range(draft.ids_NL.shape[1]):
        log_prob_RC, ids_RC = _likeliest(stepper.feed(embeds), max(CONTINUATIONS, *counts))
        fed, read = fed + embeds.shape[0] * embeds.shape[1], read + embeds.shape[0]
        beams = [
            [replace(begun, ids=(*begun.ids, opening[step])) for begun in beam]
            if step < len(opening)
            else _best(beam, log_prob_RC, ids_RC, generator, ends, count)
            for beam, (opening, generator, count) in zip(beams, wanted, strict=True)
        ]
        going = [hypothesis for beam in beams for hypothesis in beam if not hypothesis.ended]
        if not going or step + 1 == draft.ids_NL.shape[1]:
            break
        stepper.keep(torch.tensor([hypothesis.row for hypothesis in going], device=pending_NPH.device))
        rows = iter(range(len(going)))
        beams = [[b if b.ended else replace(b, row=next(rows)) for b in beam] for beam in beams]
        embeds = embed(torch.tensor([hypothesis.ids[-1] for hypothesis in going], device=pending_NPH.device))[:, None]
    for first, beam in zip(accumulate(counts, initial=0), beams, strict=False):
        for row, hypothesis in enumerate(beam, first):
            length = len(hypothesis.ids)
            draft.ids_NL[row, :length] = torch.tensor(hypothesis.ids, device=draft.ids_NL.device)
            draft.mask_NL[row, :length] = 1.0
    return fed, read


def _likeliest(logits_RV: Tensor, count: int) -> tuple[NDArray[np.float64], list[list[int]]]:
    """Log-probabilities (R, C) of each row's likeliest tokens, and which they are; a few rows at a time, for memory."""
    tops = [rows.float().log_softmax(-1).topk(min(count, rows.shape[1])) for rows in logits_RV.split(ROWS)]
    log_prob_RC = torch.cat([top.values for top in tops]).double().cpu().numpy()
    return log_prob_RC, [ids for top in tops for ids in top.indices.tolist()]


def _best(
    beam: Sequence[Hypothesis],
    log_prob_RC: NDArray[np.float64],
    ids_RC: Sequence[Sequence[int]],
    generator: np.random.Generator,
    ends: frozenset[int],
    count: int,
) -> list[Hypothesis]:
    """The ``count`` of one prompt's completions, and beginnings of ones, with the greatest noisy log-probability."""
    found = [hypothesis for hypothesis in beam if hypothesis.ended]
    for hypothesis in beam:
        if not hypothesis.ended:
            row, gumbel_C = hypothesis.row, generator.gumbel(size=log_prob_RC.shape[1:])
            found += continued(hypothesis, log_prob_RC[row], ids_RC[row], gumbel_C, ends)
    return sorted(found, key=lambda hypothesis: -hypothesis.noisy)[:count]
