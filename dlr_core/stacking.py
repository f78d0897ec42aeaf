"""Prompts that were prefilled one by one, or in several passes, put together in one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlr_core.common_prefix import common_prefix
from dlr_core.records import Beginning, PromptCache


def stack(caches: Sequence[PromptCache], beginnings: Sequence[Beginning | None] | None = None) -> PromptCache:
    """One cache of many rows, padded to one width: on the left, but for their beginnings, which stay in front.

    What all beginnings begin with is held once, and rows share a trunk then.

    Args:
        caches: without trunks; one row each, where there are beginnings.
        beginnings: of each what its keys, values and states lack (None: nothing); it is put in front of them.
    """
    starts = list(beginnings or [None] * len(caches))
    width, common = max(cache.mask_NS.shape[1] for cache in caches), in_common(starts)
    pairs = list(zip(caches, starts, strict=True))
    fixed = common.length if common else 0

    def padded(tensor: Tensor, axis: int, size: int, front: Tensor | None) -> Tensor:
        """Front, padding, and what is a row's own."""
        missing = size - tensor.shape[axis] - (0 if front is None else front.shape[axis])
        parts = [] if front is None else [front]
        if missing:
            shape = list(tensor.shape)
            shape[axis] = missing
            parts.append(tensor.new_zeros(shape))
        return torch.cat([*parts, tensor], axis) if parts else tensor

    def whole(tensor_NS: Tensor, start: Beginning | None) -> Tensor:
        """A row's mask or ids, which lack nothing."""
        front = start.length if start else 0
        return padded(tensor_NS[:, front:], 1, width, tensor_NS[:, :front])

    def layer(own: Sequence[Tensor], lacking: Sequence[Tensor | None]) -> Tensor:
        """Keys or values of a layer, after what is in common."""
        both = zip(own, lacking, strict=True)
        return torch.cat([padded(a, 2, width - fixed, None if b is None else b[:, :, fixed:]) for a, b in both])

    layers, ids = range(len(caches[0].keys)), [(c.ids_NS, start) for c, start in pairs if c.ids_NS is not None]
    found = PromptCache(
        tuple(layer([c.keys[n] for c in caches], [b.keys[n] if b else None for b in starts]) for n in layers),
        tuple(layer([c.values[n] for c in caches], [b.values[n] if b else None for b in starts]) for n in layers),
        torch.cat([whole(cache.mask_NS, start) for cache, start in pairs]),
        torch.cat([padded(c.states_NSH, 1, width, b.states_1PH if b else None) for c, b in pairs]),
        torch.cat([cache.pending_NPH for cache in caches]),
        caches[0].num_latents,
        ids_NS=torch.cat([whole(*pair) for pair in ids]) if len(ids) == len(caches) else None,
    )
    return found if common is None else found.on_trunk(common)


def in_common(beginnings: Sequence[Beginning | None]) -> Beginning | None:
    """What all of them begin with; None if that is nothing, or one is missing."""
    there = [each for each in beginnings if each]
    if not there or len(there) < len(beginnings):
        return None
    same = common_prefix([each.ids for each in there])
    return min(there, key=lambda each: each.length).crop(same) if same else None
