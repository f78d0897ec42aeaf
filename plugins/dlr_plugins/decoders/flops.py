"""What one token costs a main model."""

from typing import Any

import torch

from dlr_core.cost import TokenFlops


def token_flops(model: Any) -> TokenFlops:
    """Two FLOPs per entry of every matrix of a causal language model; tables that are only looked up are no matrices.

    The model's weights are not read: one without any, on PyTorch's ``meta`` device, will do.
    """
    body = model.base_model
    tables = {id(m.weight) for m in body.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = [p.numel() for p in body.parameters() if p.dim() > 1 and id(p) not in tables]
    return TokenFlops(2 * sum(matrices), 2 * model.get_output_embeddings().weight.numel())
