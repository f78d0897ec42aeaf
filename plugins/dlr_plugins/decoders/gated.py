"""Gated feed-forward parts, silu(g) · u, of which two tensors are kept for the way back instead of three.

Autograd keeps g for the silu, and silu(g) and u for the product: of a frozen model's scoring pass they are three
quarters of all that it keeps. silu(g) is found again from g, by the same operation and so to the same bits.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.activations import SiLUActivation

PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""What Transformers calls the parts of one."""


def spare(model: Any) -> int:
    """Let a frozen model's gated feed-forward parts keep less; how many there are.

    A part that gives anything else than down(silu(gate) · up) on a trial is left alone.
    """
    table = model.get_input_embeddings().weight
    trial = torch.linspace(-1, 1, 2 * table.shape[1], dtype=table.dtype, device=table.device).view(2, -1)
    parts = [part for part in gated(model) if _same(part, trial)]
    for part in parts:
        part.forward = partial(_forward, part)
    return len(parts)


def gated(model: nn.Module) -> list[Any]:
    """Parts of a model that look like gated ones."""
    named = [part for part in model.modules() if {name for name, _ in part.named_children()} == PARTS]
    return [part for part in named if isinstance(part.act_fn, (nn.SiLU, SiLUActivation))]


def _same(part: Any, trial: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(part(trial), _forward(part, trial))


def _forward(part: Any, x: Tensor) -> Tensor:
    gate, up = part.gate_proj(x), part.up_proj(x)
    inner = _Gated.apply(gate, up) if torch.is_grad_enabled() else silu(gate).mul_(up)  # type: ignore[no-untyped-call]
    down: Tensor = part.down_proj(inner)
    return down


class _Gated(torch.autograd.Function):
    """silu(g) · u."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grads[0] * up, gate), silu(gate).mul_(grads[0])
