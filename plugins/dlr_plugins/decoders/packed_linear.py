"""Frozen linear layers on a CPU, multiplied from their weights in a library's own order.

PyTorch's float32 product on a CPU is MKL's, which brings a weight matrix into its own order anew in every product. With
the few dozen rows of a batch of chains that is a good part of the work. Frozen weights can be brought into oneDNN's
order once. Layers that read the same input (queries, keys and values; gate and up) are one product: small ones leave
threads waiting for each other. Order is all that is changed, so weights packed in float32 are not held a second time:
what has to read them as they were, gradients and the digest, puts them in a row again.

Weights that were rounded to float16 are packed in it, in FBGEMM's order, and are not held a second time either: only
order is changed. There is a second copy, in the order of the way back, once something is learned.

Weights may be packed in bfloat16, and are held beside: what they multiply and what comes out is rounded to it then, and
all that is no product stays float32. CPUs with AMX multiply ten times as fast so, and read half as much. The output
head's own product stays float32: that are the logits, of which bfloat16 has no more than eight bits.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import psutil
import torch
from torch import Tensor, nn

from dlr_plugins.decoders.frozen_product import frozen_product
from dlr_plugins.decoders.orders import Ordered, ordered, product
from dlr_plugins.decoders.products import ASKED_BY, Packing, mkl_is_faster

_log = logging.getLogger(__name__)
LEAST_BYTES = 64 << 20
"""Weights of all layers below which nothing is gained: they stay in the processor's cache."""
MOST_OF_MEMORY = 0.1
"""Share of the machine's memory that what is held beside the weights may take: beyond that a model is left alone."""


def worth_packing(size: int, beside: int, device: torch.device, dtype: torch.dtype, memory: int) -> bool:
    """Whether weights of so many bytes are packed, on a machine with so much memory.

    Args:
        size: of all layers' weights.
        beside: what would be held beside them.
        device: where they are.
        dtype: theirs.
        memory: the machine's.
    """
    plain = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return plain and size >= LEAST_BYTES and beside <= MOST_OF_MEMORY * memory


def pack(
    model: nn.Module,
    trial: Callable[[], object] | None = None,
    packing: Packing = "float32",
    head: nn.Module | None = None,
) -> list["PackedLinear"]:
    """Let every linear layer of a frozen model multiply from packed weights, where that can be and is worth it.

    That is a model in float32 on a CPU, if PyTorch was built with oneDNN. Nothing that varies from run to run decides:
    equal runs on one machine need equal bits.

    Args:
        model: loaded.
        trial: a pass of the model, to see which layers read the same input; without it each is multiplied alone.
        packing: what the packed weights are in; of float16, what the weights have been rounded to.
        head: a layer that keeps its own weights, and is not packed in bfloat16 for the way forward.
    """
    layers = {name: layer for name, layer in model.named_modules() if type(layer) is nn.Linear}
    dtype = getattr(torch, packing)
    times = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    keeping = {one for one in layers.values() if packing == "bfloat16" or one is head or times[id(one.weight)] > 1}
    size, beside = (sum(layer.weight.nbytes for layer in some) for some in (layers.values(), keeping))
    hooked = any(hasattr(layer, "_hf_hook") for layer in layers.values())  # its weights come and go
    memory = psutil.virtual_memory().total
    fitting = all(worth_packing(size, beside, one.weight.device, one.weight.dtype, memory) for one in layers.values())
    if hooked or not fitting:
        if packing != "float32":
            _log.warning("%s gains nothing: this model's weights are not packed here", ASKED_BY[packing])
        return []
    groups = [[layer] for layer in layers.values()] if trial is None else reading_alike(layers, trial)
    packed = []
    for group in groups:
        keeps = any(layer in keeping for layer in group)
        forward = torch.float32 if packing == "bfloat16" and head in group else dtype
        together = Together(group, forward, dtype, keeps=keeps)
        made = [PackedLinear(layer, together, number) for number, layer in enumerate(group)]
        for one in made:
            one.use(True)
        packed += made
    for weight in model.parameters():  # a file that is mapped into memory stays there while a tensor is a part of it
        weight.data = weight.data.clone()
    return packed


def reading_alike(layers: Mapping[str, nn.Linear], trial: Callable[[], object]) -> list[list[nn.Linear]]:
    """Layers of one module that a pass calls one after another with the very same tensor, in groups."""
    calls: list[tuple[str, Tensor, int]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: calls.append((name, given[0], given[0]._version)))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            trial()
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(name for name, _, _ in calls)
    groups: list[list[str]] = [[name] for name in layers if times[name] != 1]
    before: tuple[str, Tensor, int] | None = None
    for name, given, version in calls:
        if times[name] != 1:
            before = None
            continue
        parent = name.rpartition(".")[0]
        if before is not None and before[0] == parent and before[1] is given and before[2] == version:
            groups[-1].append(name)
        else:
            groups.append([name])
        before = (parent, given, version)
    return [[layers[name] for name in group] for group in groups]


class Together:
    """Layers that read the same input, one product for all.

    The first that is called multiplies for all of them; the others, called with that very tensor, take their part. What
    is held in between is a thread's own, and is gone when the last has taken its part.

    Args:
        layers: with their weights.
        dtype: of the packed weights.
        back_dtype: of products on the way back.
        keeps: whether the layers keep their own weights; else the packed ones are all that there is, none rounded.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        dtype: torch.dtype = torch.float32,
        back_dtype: torch.dtype = torch.float32,
        *,
        keeps: bool = True,
    ) -> None:
        self.layers, self.back_dtype, self.keeps = list(layers), back_dtype, keeps
        self.sizes = [layer.out_features for layer in layers]
        biases, bias_O = [layer.bias for layer in layers], None
        if any(bias is not None for bias in biases):
            own = [layer.weight.new_zeros(layer.out_features) if bias is None else bias.detach()
                   for layer, bias in zip(layers, biases, strict=True)]  # fmt: skip
            bias_O = torch.cat(own)
        self.packed = ordered(self._own(), dtype, bias_O)
        self._held = _Held()

    def _own(self) -> Tensor:
        weights = [layer.weight.detach() for layer in self.layers]
        return weights[0] if len(weights) == 1 else torch.cat(weights)

    def weight(self) -> Tensor:
        """All layers' weights (O, I), one after another, in a row; made anew where only packed ones are held."""
        return self._own() if self.keeps else self.packed.dense()

    def part(self, rows_xI: Tensor, number: int) -> Tensor:
        """xWᵀ + b of one of the layers, differentiable in x alone."""
        if len(self.sizes) == 1:
            return frozen_product(rows_xI, self)
        held = self._held
        if held.input is not rows_xI or number not in held.parts:
            held.input = rows_xI
            held.parts = dict(enumerate(frozen_product(rows_xI, self).split(self.sizes, -1)))
        part = held.parts.pop(number)
        if not held.parts:
            held.input = None
        return part

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b of all layers, one after another, from the packed weights."""
        return self.packed.product(rows_xI)

    def back(self, grad_xO: Tensor) -> Tensor:
        """The gradient in x, of one in all layers' products.

        From the weights in a row, by the library whose product of such is the faster one, or from a packed copy if
        products are not float32.
        """
        if self.back_dtype != torch.float32:
            return self.turned.product(grad_xO)
        weight_OI = self.weight()
        return grad_xO @ weight_OI if mkl_is_faster() else product(grad_xO, weight_OI.t())

    @property
    def held(self) -> list[Ordered]:
        """Packed weights."""
        return [self.packed, *([self.turned] if "turned" in vars(self) else [])]

    @cached_property
    def turned(self) -> Ordered:
        """The packed copy for the way back, made when something first goes that way."""
        return ordered(self.weight().t(), self.back_dtype)


class _Held(threading.local):
    """What a product has given that was not asked for yet."""

    def __init__(self) -> None:
        self.input: Tensor | None = None
        self.parts: dict[int, Tensor] = {}


class PackedLinear:
    """Stands in for the forward pass of one layer, whose own weights are nowhere meanwhile if they are not kept."""

    def __init__(self, layer: nn.Linear, together: Together, number: int) -> None:
        self.layer, self.together, self.number = layer, together, number

    def use(self, on: bool) -> None:
        """Let the layer multiply this way, or by its own weights again."""
        if on:
            self.layer.forward = self  # type: ignore[method-assign]
        else:
            self.layer.__dict__.pop("forward", None)
        if not self.together.keeps and on != self.layer.weight.is_meta:
            weight_OI = self.layer.weight.to("meta") if on else self.weight().clone()
            self.layer.weight = nn.Parameter(weight_OI, requires_grad=False)

    def __call__(self, input: Tensor) -> Tensor:
        """xWᵀ + b, differentiable in x alone."""
        return self.together.part(input, self.number)

    def weight(self) -> Tensor:
        """The layer's weights (O, I)."""
        found: Tensor = self.together.weight().split(self.together.sizes)[self.number]
        return found
