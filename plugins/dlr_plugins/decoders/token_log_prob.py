"""Log-probabilities of given tokens, a slice of positions at a time: never all positions times the vocabulary."""

from typing import Any

import torch
from torch import Tensor, nn

from dlr_plugins.decoders.packed_linear import PackedLinear

SLICE_ON_CPU, SLICE_ELSEWHERE = 64, 128
"""Positions whose logits exist at the same time, and their exponentials."""


def token_log_prob(hidden_MH: Tensor, head: nn.Linear, ids_M: Tensor, temperature: float) -> Tensor:
    """log softmax((hW + b) / temperature) at one token for each final state: (M,) in nats, float32.

    Differentiable in the states alone: the model is frozen.
    """
    place = head.weight.device  # of a spread model another than its inputs'
    given = (hidden_MH.to(place), head, ids_M.to(place), float(temperature))
    found_M: Tensor = _TokenLogProb.apply(*given)  # type: ignore[no-untyped-call]
    return found_M.to(hidden_MH.device)


class _TokenLogProb(torch.autograd.Function):
    """What flows back to the states is found where the logits are."""

    @staticmethod
    def forward(ctx: Any, hidden_MH: Tensor, head: nn.Linear, ids_M: Tensor, temperature: float) -> Tensor:
        """Log-probabilities (M,) in nats, float32."""
        found_M = torch.empty(len(ids_M), dtype=torch.float32, device=hidden_MH.device)
        slope_MH = torch.empty_like(hidden_MH) if ctx.needs_input_grad[0] else None
        states_MH, weight_VH = hidden_MH.detach(), head.weight.detach()
        size = SLICE_ON_CPU if weight_VH.device.type == "cpu" else SLICE_ELSEWHERE
        for start in range(0, len(ids_M), size):
            part, ids_S1 = slice(start, start + size), ids_M[start : start + size, None]
            logits_SV = head(states_MH[part]).float()
            if temperature != 1.0:
                logits_SV /= temperature
            total_S1 = logits_SV.logsumexp(1, keepdim=True)
            found_M[part] = (logits_SV.gather(1, ids_S1) - total_S1)[:, 0]
            if slope_MH is not None:
                chance_SV = logits_SV.sub_(total_S1).exp_()
                chance_SV.scatter_add_(1, ids_S1, -torch.ones_like(total_S1))
                chance_SV = chance_SV.to(weight_VH.dtype)
                packed = head.forward if isinstance(head.forward, PackedLinear) else None
                slope_MH[part] = chance_SV @ weight_VH if packed is None else packed.together.back(chance_SV)
        if slope_MH is not None:
            ctx.save_for_backward(slope_MH.div_(-temperature))
        return found_M

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """To the hidden states alone: the model is frozen."""
        (slope_MH,) = ctx.saved_tensors
        return slope_MH * grads[0][:, None].to(slope_MH.dtype), None, None, None
