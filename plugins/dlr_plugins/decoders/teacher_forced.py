"""The likelihood of completions under chains whose prompts are held once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlr_core.cost import Usage
from dlr_core.records import PromptCache
from dlr_plugins.decoders.abreast import abreast, workers_for
from dlr_plugins.decoders.shared_prompts import Chains
from dlr_plugins.decoders.token_log_prob import token_log_prob

TOKENS, LEAST_TOKENS = 256, 64
"""Positions scored at a time on a CPU, at most, in all threads' passes together; and in one of them, at least.

A pass holds its activations until its gradients are found.
"""
MANY_TOKENS = 8192
"""Positions scored in one pass, at most, where products must be wide to be fast."""


def at_once(device: torch.device, workers: int = 1) -> int:
    """Positions that are scored in one pass, at most, on a kind of device, where so many threads have one each."""
    return max(TOKENS // workers, LEAST_TOKENS) if device.type == "cpu" else MANY_TOKENS


@dataclass(frozen=True)
class TeacherForced:
    """Scores completions under chains, differentiable in what was injected."""

    model: Any
    flops_per_position: float
    plain_head: bool
    """Whether the logits are final states times output table."""
    alone: bool = False
    """Whether one thread must do it all: weights that come and go do so for everyone."""
    at_once: int = 0
    """Positions scored in one pass, at most; 0: as suits the device."""

    def log_prob(self, cache: PromptCache, ids_NL: Tensor, mask_NL: Tensor, temperature: float, usage: Usage) -> Tensor:
        """Log-probability (N,) in nats of completions: only tokens that lead to a masked one are fed.

        A row's likelihood depends on no other row's tensors, so every part of the rows is scored, and the gradients of
        its own tensors found, before the next part begins; flowing back, they are only multiplied.
        """
        trunk = cache.trunk
        if trunk is None and not any(tensor.requires_grad for tensor in (*cache.keys, *cache.values)):
            cache = cache.on_trunk()
        elif trunk is not None and any(tensor.requires_grad for tensor in (*trunk.keys, *trunk.values)):
            cache = cache.whole()
        given = [*cache.keys, *cache.values, cache.pending_NPH]
        back = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
        wanted = mask_NL.bool()
        order_N = torch.arange(1, wanted.shape[1] + 1, device=wanted.device)
        lengths_N = cache.pending_NPH.shape[1] - 1 + (wanted * order_N).amax(1).clamp(min=1)
        positions, read = int(lengths_N.sum()), int(wanted.sum())
        usage.scored += positions
        usage.backpropagated += positions * back
        usage.logits += read * (1 + back)
        cache = replace(cache, states_NSH=cache.states_NSH[:, :0])
        work = _Work(self.model, self.plain_head, cache, ids_NL, wanted, lengths_N, temperature)
        workers = 1 if self.alone else workers_for(wanted.device, cache.rows, positions * self.flops_per_position)
        passes = -(-positions // (workers * (self.at_once or at_once(wanted.device, workers))))
        rows = work.cut(workers * passes)
        if not back:
            found = abreast([partial(work.score, part, []) for part in rows], workers)
            return mask_NL.new_zeros(cache.rows).index_copy(0, torch.cat(rows), torch.cat([f[0] for f in found]))
        log_prob_N: Tensor = _Rowwise.apply(work, rows, workers, *given)  # type: ignore[no-untyped-call]
        return log_prob_N.to(mask_NL.dtype)


@dataclass(frozen=True)
class _Work:
    """Completions to be scored."""

    model: Any
    plain_head: bool
    cache: PromptCache
    ids_NL: Tensor
    wanted_NL: Tensor
    lengths_N: Tensor
    temperature: float

    def cut(self, parts: int) -> list[Tensor]:
        """Rows in parts of about as many positions each, those of one prompt together."""
        trunk = self.cache.trunk
        rows = torch.arange(self.cache.rows, device=self.lengths_N.device)
        order = rows if trunk is None or parts == 1 else trunk.rows_N.argsort(stable=True)
        lengths = self.lengths_N[order]
        middle = lengths.cumsum(0) - lengths / 2
        number = (middle * parts / max(1, int(lengths.sum()))).long().clamp(max=parts - 1)
        return [order[number == part] for part in range(parts) if bool((number == part).any())]

    def score(self, rows_M: Tensor, leaves: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Log-probabilities (M,) of some rows, and gradients of the given tensors: keys, values, pending, in a row."""
        with torch.no_grad():
            whole = torch.equal(rows_M, torch.arange(self.cache.rows, device=rows_M.device))
            part = self.cache if whole else self.cache.select(rows_M)
        tensors = [tensor.detach() for tensor in (*part.keys, *part.values, part.pending_NPH)]
        with torch.set_grad_enabled(bool(leaves)):
            for leaf in leaves:
                tensors[leaf].requires_grad_()
            depth = len(part.keys)
            part = replace(
                part,
                keys=tuple(tensors[:depth]),
                values=tuple(tensors[depth : 2 * depth]),
                pending_NPH=tensors[-1],
            )
            log_prob_M = self._forward(part, rows_M)
            if not leaves:
                return log_prob_M, []
            grads = torch.autograd.grad(
                log_prob_M.sum(), [tensors[leaf] for leaf in leaves], allow_unused=True, materialize_grads=True
            )
        return log_prob_M.detach(), list(grads)

    def _forward(self, part: PromptCache, rows_M: Tensor) -> Tensor:
        ids_ML, wanted_ML, lengths_M = self.ids_NL[rows_M], self.wanted_NL[rows_M], self.lengths_N[rows_M]
        embed, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        width = int(lengths_M.max())
        embeds_MWH = torch.cat([part.pending_NPH, embed(ids_ML[:, :-1])], 1)[:, :width]
        kept = (torch.arange(width, device=lengths_M.device) < lengths_M[:, None]).flatten()
        ends = torch.nn.functional.pad(wanted_ML, (part.pending_NPH.shape[1] - 1, 0))[:, :width].flatten()
        kept_P = kept.nonzero()[:, 0]
        packed_MH, kept_M = embeds_MWH.flatten(0, 1)[kept_P], None if len(kept_P) == len(kept) else kept_P
        asked_M = ends[kept_P]
        chains = Chains(part, width=width)
        if self.plain_head:
            out = chains.read(self.model.base_model, packed_MH, width, kept_M)
            states = out.last_hidden_state[0, asked_M]
            spoken = token_log_prob(states, head, ids_ML[wanted_ML], self.temperature)
        else:
            asked = asked_M.nonzero()[:, 0]
            logits = chains.read(self.model, packed_MH, width, kept_M, logits_to_keep=asked).logits[0].float()
            spoken = -torch.nn.functional.cross_entropy(logits / self.temperature, ids_ML[wanted_ML], reduction="none")
        found_ML = torch.zeros(wanted_ML.shape, dtype=spoken.dtype, device=spoken.device)
        return found_ML.masked_scatter(wanted_ML, spoken).sum(1)


FIRST = 3
"""Arguments before the tensors."""


class _Rowwise(torch.autograd.Function):
    """Log-probabilities of rows, each a function of its own row of every given tensor."""

    @staticmethod
    def forward(ctx: Any, work: _Work, rows: list[Tensor], workers: int, *given: Tensor) -> Tensor:
        """Scores all parts, gradients included."""
        ctx.leaves = [number for number in range(len(given)) if ctx.needs_input_grad[FIRST + number]]
        found = abreast([partial(work.score, part, ctx.leaves) for part in rows], workers)
        order = torch.cat(rows)
        slopes = []
        for place, leaf in enumerate(ctx.leaves):
            found_slopes = torch.cat([f[1][place] for f in found])
            slopes.append(torch.empty_like(given[leaf]).index_copy_(0, order.to(found_slopes.device), found_slopes))
        ctx.save_for_backward(*slopes)
        log_prob = torch.cat([part for part, _ in found])
        return torch.empty_like(log_prob).index_copy_(0, order, log_prob)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Multiplies."""
        slopes: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for leaf, slope in zip(ctx.leaves, ctx.saved_tensors, strict=True):
            slopes[FIRST + leaf] = slope * grads[0].to(slope).view(-1, *[1] * (slope.dim() - 1))
        return tuple(slopes)
