"""Prompts of a batch run in passes of similar length, so that little is computed of padding."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from dlr_core.records import Beginning, PromptCache
from dlr_core.stacking import stack
from dlr_plugins.decoders.cache_name import CACHE

PASS_ON_CPU, PASS_ELSEWHERE = 32, 2048
"""Positions that a further pass must save at least: on a CPU they take as long as what comes with a pass; an
accelerator computes many at once."""


def passes_of(lengths_N: Sequence[int], further: int) -> list[list[int]]:
    """Rows of every pass, in their order: those for which the positions computed are fewest.

    The rows of a pass are padded to the longest of them, and each pass counts as ``further`` positions more.
    """
    counts = Counter(lengths_N)
    lengths = sorted(counts)
    best: list[tuple[int, int]] = [(0, 0)]
    """Least cost of the so many shortest lengths, and where their last pass begins."""
    for end in range(1, len(lengths) + 1):
        found, rows = [], 0
        for begin in reversed(range(end)):
            rows += counts[lengths[begin]]
            found.append((best[begin][0] + rows * lengths[end - 1] + further, begin))
        best.append(min(found))
    passes, end = [], len(lengths)
    while end:
        begin = best[end][1]
        kept = set(lengths[begin:end])
        passes.append([row for row, length in enumerate(lengths_N) if length in kept])
        end = begin
    return passes[::-1]


def prefilled(
    body: Any, bodies: Sequence[Sequence[int]], start: Beginning | None, pad: int, device: torch.device
) -> tuple[PromptCache, int]:
    """What a model remembers of token ids after a beginning, left-padded, and how many positions were computed of them.

    Args:
        body: without its head.
        bodies: token ids of every row, one at least.
        start: what all rows begin with, if anything.
        pad: token id that padding is computed as.
        device: of the inputs.
    """
    passes = passes_of([len(ids) for ids in bodies], PASS_ON_CPU if device.type == "cpu" else PASS_ELSEWHERE)
    parts = [_one_pass(body, [bodies[row] for row in rows], start, pad, device) for rows in passes]
    fixed = start.length if start else 0
    computed = sum(part.rows * (part.mask_NS.shape[1] - fixed) for part in parts)
    return (parts[0] if len(parts) == 1 else _together(parts, passes, start)), computed


def _one_pass(
    body: Any, bodies: Sequence[Sequence[int]], start: Beginning | None, pad: int, device: torch.device
) -> PromptCache:
    count, width, fixed = len(bodies), max(map(len, bodies)), start.length if start else 0
    ids_NS = torch.full((count, width), pad, device=device)
    mask_NS = torch.ones(count, fixed + width, dtype=torch.long, device=device)
    for number, ids in enumerate(bodies):
        ids_NS[number, width - len(ids) :] = torch.tensor(ids, device=device)
        mask_NS[number, fixed : fixed + width - len(ids)] = 0
    cache = _going_on(start, count)
    out = body(
        input_ids=ids_NS,
        attention_mask=mask_NS,
        position_ids=(mask_NS.cumsum(1) - 1).clamp(min=0)[:, fixed:],
        **{CACHE: cache},
        use_cache=True,
    )
    states = out.last_hidden_state
    if start is not None:
        states = torch.cat([start.states_1PH.expand(count, -1, -1), states], 1)
    return PromptCache(*layers_of(cache), mask_NS, states, states[:, :0], 0, beginning=start)


def _going_on(start: Beginning | None, count: int) -> DynamicCache:
    """A Transformers cache of so many rows that all begin so; they are copied when a layer adds to them, not before."""
    cache = DynamicCache()
    for pair in zip(start.keys, start.values, strict=True) if start else ():
        layer = DynamicLayer()
        layer.lazy_initialization(*pair)
        layer.keys, layer.values = (tensor.expand(count, -1, -1, -1) for tensor in pair)
        cache.layers.append(layer)
    return cache


def layers_of(cache: DynamicCache) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values, layer by layer."""
    return tuple(layer.keys for layer in cache.layers), tuple(layer.values for layer in cache.layers)


def _together(parts: Sequence[PromptCache], passes: Sequence[Sequence[int]], start: Beginning | None) -> PromptCache:
    """Rows of several passes in one cache, each where it was in the batch."""
    fixed = start.length if start else 0
    places = {row: (part, place) for part, rows in zip(parts, passes, strict=True) for place, row in enumerate(rows)}
    each = [_row(*places[row], fixed) for row in range(len(places))]
    return replace(stack(each, [start] * len(each)).whole(), beginning=start)


def _row(part: PromptCache, place: int, fixed: int) -> PromptCache:
    """One row, without keys, values and states of the first positions."""
    at = slice(place, place + 1)
    return replace(
        part,
        keys=tuple(key[at, :, fixed:] for key in part.keys),
        values=tuple(value[at, :, fixed:] for value in part.values),
        mask_NS=part.mask_NS[at],
        states_NSH=part.states_NSH[at, fixed:],
        pending_NPH=part.pending_NPH[at],
    )
