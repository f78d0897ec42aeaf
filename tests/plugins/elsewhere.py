"""A second device that is none: tensors that say they lie elsewhere, hold real values, and go with their like only.

PyTorch has no device without hardware that computes. So ``meta`` is made one: what is brought there inside :class:`Two`
is computed on the CPU, and an operation on tensors of both devices raises, as it would on GPUs.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

PLACE = torch.device("meta")


class Elsewhere(torch.Tensor):
    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=PLACE, requires_grad=held.requires_grad,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held.detach()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Two(TorchDispatchMode):
    """While inside, there are two devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    args, kwargs = tree_map(
        lambda it: Elsewhere(torch.empty(it.shape, dtype=it.dtype)) if hollow(it) else it, (args, kwargs)
    )
    tensors = [given for given in tree_flatten((args, kwargs))[0] if isinstance(given, torch.Tensor)]
    there = [given for given in tensors if isinstance(given, Elsewhere)]
    name = func.overloadpacket.__name__
    if "device" in kwargs and kwargs["device"] is not None:
        to = torch.device(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu")}
    else:
        to = PLACE if there else torch.device("cpu")
    free = name in ("copy_", "_to_copy")
    here = [given for given in tensors if not isinstance(given, Elsewhere) and given.dim()]
    if there and here and not free:
        raise RuntimeError(f"{name}: tensors on two devices: {[tuple(t.shape) for t in tensors]}")
    args, kwargs = tree_map(lambda it: it.held if isinstance(it, Elsewhere) else it, (args, kwargs))
    out = func(*args, **kwargs)
    if name.endswith("_") and not name.endswith("__"):
        return tensors[0]
    return tree_map(lambda it: Elsewhere(it) if isinstance(it, torch.Tensor) and to == PLACE else it, out)


def hollow(given):
    """An empty tensor that PyTorch has made on the real ``meta``."""
    plain = isinstance(given, torch.Tensor) and not isinstance(given, Elsewhere)
    return plain and given.device == PLACE and not given.numel()
