"""Frozen linear layers on a CPU, multiplied by oneDNN from a copy of their weights in its own order.

PyTorch's float32 product on a CPU is MKL's, which brings a weight matrix into its own order anew in every product. With
the few dozen rows of a batch of chains that is a good part of the work. Frozen weights can be brought into oneDNN's
order once. The layers keep their own weights: gradients flow back through them, and the digest is theirs.
"""

import psutil
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dlr_plugins.decoders.frozen_product import frozen_product

LEAST_BYTES = 64 << 20
"""Weights of all layers below which nothing is gained: they stay in the processor's cache."""
MOST_OF_MEMORY = 0.1
"""Share of the machine's memory that the copy may take: beyond that a model keeps to its own weights."""
ROWS = 64
"""Rows of a product that the order is chosen for."""
STEPS, WIDEST_STEP = ((8, 1), (256, 8)), 32
"""Up to so many rows their number is rounded up to a multiple of this; beyond, of the widest."""


def worth_packing(size: int, device: torch.device, dtype: torch.dtype, memory: int) -> bool:
    """Whether weights of so many bytes are copied into oneDNN's order, on a machine with so much memory."""
    plain = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return plain and LEAST_BYTES <= size <= MOST_OF_MEMORY * memory


def pack(model: nn.Module) -> list["PackedLinear"]:
    """Let every linear layer of a frozen model multiply from a packed copy, where that can be and is worth it.

    That is float32 on a CPU, if PyTorch was built with oneDNN. Nothing that varies from run to run decides: equal runs
    on one machine need equal bits.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
    size = sum(layer.weight.nbytes for layer in layers)
    hooked = any(hasattr(layer, "_hf_hook") for layer in layers)  # its weights come and go
    memory = psutil.virtual_memory().total
    fitting = all(worth_packing(size, layer.weight.device, layer.weight.dtype, memory) for layer in layers)
    if hooked or not fitting:
        return []
    packed = [PackedLinear(layer) for layer in layers]
    for one in packed:
        one.use(True)
    return packed


class PackedLinear:
    """Stands in for the forward pass of one layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def use(self, on: bool) -> None:
        """Let the layer multiply this way, or its own again."""
        if on:
            self.layer.forward = self  # type: ignore[method-assign]
        else:
            self.layer.__dict__.pop("forward", None)

    def __call__(self, input: Tensor) -> Tensor:
        """xWᵀ + b, differentiable in x alone."""
        return frozen_product(input, self)

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b from the packed weights."""
        return product(rows_xI, self.packed, self.layer.bias)

    def back(self, grad_xO: Tensor) -> Tensor:
        """The gradient in x, from the layer's own weights."""
        return product(grad_xO, self.layer.weight.detach().t())


def product(rows_xI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """oneDNN's xWᵀ + b; the weights packed, or as they are (transposed ones too)."""
    rows_NI = rows_xI.reshape(-1, rows_xI.shape[-1])
    count = len(rows_NI)
    if more := rounded(count) - count:
        rows_NI = pad(rows_NI, (0, 0, 0, more))
    found_NO: Tensor = torch.ops.mkldnn._linear_pointwise(rows_NI.contiguous(), weight_OI, bias_O, "none", [], "")
    return found_NO[:count].view(*rows_xI.shape[:-1], found_NO.shape[1])


def rounded(count: int) -> int:
    """How many rows so many are multiplied as.

    oneDNN compiles a kernel of half a megabyte for every number of rows that it meets, and keeps a thousand; how many
    rows a batch of chains has changes from pass to pass.
    """
    step = next((step for most, step in STEPS if count <= most), WIDEST_STEP)
    return -(-count // step) * step
