"""Attention of many chains to prompts that are held once.

Everything in a language model but attention works token by token. So all chains' new tokens are fed as one row
(1, M, H) without padding, and attention alone knows which chain each belongs to: it scores a chain's tokens against its
prompt's keys, held once for all chains that go on from it, and against the chain's own keys, and takes one softmax over
both. What many prompts begin with is held once for all of them, and scored in one product for all chains. It is
registered with Transformers under :data:`NAME`; outside :meth:`Chains.read` it is Transformers' own.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dlr_core.errors import ModelError
from dlr_core.memory import FEW
from dlr_core.records import PromptCache, Trunk
from dlr_plugins.decoders.cache_name import CACHE
from dlr_plugins.decoders.grouping import arrange

NAME = "dlr_shared_prompts"
Pair = tuple[Tensor, Tensor]
"""Keys and values."""
CHANGES = ("softcap", "s_aux", "position_bias", "sliding_window", "indices")
"""Arguments with which a model asks for another attention than the plain one."""
_reading: ContextVar["Chains | None"] = ContextVar("reading", default=None)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What Transformers calls in every layer.

    Raises:
        ModelError: the model asks for an attention that chains on shared prompts do not have.
    """
    chains = _reading.get()
    if chains is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    asked = [name for name in CHANGES if kwargs.get(name) is not None]
    if asked:
        raise ModelError(f"its attention has {', '.join(asked)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return chains.attend(query[0] * scale, key[0], value[0])[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _NewOnly(DynamicCache):  # type: ignore[misc]
    """Hands a layer's new keys and values on as they are; the chains keep them."""

    def __init__(self, chains: "Chains") -> None:
        super().__init__()
        self.chains = chains

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.chains.layer = layer_idx
        return key_states, value_states


class Chains:
    """R rows that go on from prompts, and what each has of its own: Z slots, as many for every prompt.

    ``place_R`` is each row's slot. A slot's own keys and values are what the cache holds of it, then the tokens read;
    they are kept (U, heads, slots of a prompt, length, width), U prompts, as attention multiplies them.
    """

    def __init__(self, cache: PromptCache, room: int = 0, width: int = 1) -> None:
        """Arrange a cache's rows.

        Args:
            cache: left as it is.
            room: tokens per row that can be read one pass after another, without gradients; with 0 there is one
                pass, differentiable in the cache.
            width: most tokens of a row in that pass, to arrange rows by.
        """
        trunk = cache.trunk if cache.trunk is not None and cache.trunk.length else None
        prompts = list(range(cache.rows)) if trunk is None else trunk.rows_N.tolist()
        far = 0 if trunk is None else int(trunk.keys[0].shape[2])
        groups, self.size, slots = arrange(prompts, far, int(cache.keys[0].shape[2]) + max(room, width))
        device = cache.mask_NS.device
        self.prompt_of = groups
        """Which prompt each group goes on from."""
        self.place_R = torch.tensor(slots, device=device)
        self.in_order = slots == list(range(self.groups * self.size))
        self.next_R = cache.mask_NS.sum(1)
        """Position of every row's next token in its own text."""
        start = 0 if trunk is None else trunk.length
        self.prompts: list[Pair] = []
        self.beginning: list[Pair] = []
        """Keys and values (h, positions, d) of every layer that all prompts begin with."""
        self.prompt_mask: Tensor | None = None
        if trunk is not None:
            self._read_trunk(trunk, groups)
            leader = {prompt: row for row, prompt in enumerate(prompts)}
            mask_US = cache.mask_NS[[leader[prompt] for prompt in groups], start - self._far : start].bool()
            self.prompt_mask = None if bool(mask_US.all()) else mask_US[:, None, None]
        mask_NT = cache.mask_NS[:, start:].bool()
        self.own = list(zip(cache.keys, cache.values, strict=True))
        if self.in_order:
            self.own = [(self._by_group(key), self._by_group(value)) for key, value in self.own]
        else:
            source_Z = torch.zeros(self.groups * self.size, dtype=torch.long, device=device)
            source_Z[self.place_R] = torch.arange(cache.rows, device=device)
            self._regroup(source_Z, 1)
            mask_NT = mask_NT[source_Z]
        self.own_mask = None if bool(mask_NT.all()) else mask_NT
        self.room, self.length, self.layer, self.width = room, mask_NT.shape[1], 0, 0
        if room:
            self._replace(lambda tensor: _with_room(tensor, room))
        self.slots_M: Tensor | None = None
        self.hidden: Tensor | None = None

    def _read_trunk(self, trunk: Trunk, groups: list[int]) -> None:
        """Take the prompts of some groups, and what they begin with: apart, if they are many."""
        self.prompts = list(zip(trunk.keys, trunk.values, strict=True))
        if groups != list(range(len(trunk.keys[0]))):
            held = torch.tensor(groups, device=trunk.rows_N.device)
            self.prompts = [_rows(held, *pair) for pair in self.prompts]
        if trunk.beginning is None:
            return
        shared = list(zip(trunk.beginning.keys, trunk.beginning.values, strict=True))
        if self.groups > FEW:
            self.beginning = [(key[0], value[0]) for key, value in shared]
        else:
            self.prompts = [(_after(a, b), _after(c, d)) for (a, c), (b, d) in zip(shared, self.prompts, strict=True)]

    @property
    def groups(self) -> int:
        """U, how many there are."""
        return len(self.prompt_of)

    @property
    def _far(self) -> int:
        """Positions of a prompt, without what is held for all."""
        return int(self.prompts[0][0].shape[2])

    def read(self, module: Any, embeds_MH: Tensor, width: int, kept_M: Tensor | None = None, **kwargs: Any) -> Any:
        """One pass of a model over new tokens of every row.

        Args:
            module: the model, or its body.
            embeds_MH: input embeddings of all rows' tokens, row after row.
            width: most tokens of a row.
            kept_M: which of the (R · width) places of a rectangle they fill, in order; all if None.
            kwargs: for the model.
        """
        steps_W = torch.arange(width, device=self.place_R.device)
        slots_M = (self.place_R[:, None] * width + steps_W).flatten()
        positions_M = (self.next_R[:, None] + steps_W).flatten()
        if kept_M is not None:
            slots_M, positions_M = slots_M[kept_M], positions_M[kept_M]
        self.slots_M = None if self.in_order and kept_M is None else slots_M
        self.width, self.hidden = width, self._hidden(width)
        before = _reading.set(self)
        try:
            out = module(
                inputs_embeds=embeds_MH[None],
                attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeds_MH.device),  # 4-D: ready-made
                position_ids=positions_M[None],
                **{CACHE: _NewOnly(self)},
                use_cache=True,
                **kwargs,
            )
        finally:
            _reading.reset(before)
        if self.room:
            self.length += width
            self.next_R = self.next_R + width
        return out

    def _hidden(self, width: int) -> Tensor | None:
        """Own positions that a new token does not see, (U or 1, 1, slots or 1, width, 1, own positions); None: none."""
        if width == 1 and self.own_mask is None:
            return None
        ones = torch.ones(1, width, self.length + width, dtype=torch.bool, device=self.place_R.device)
        seen = ones.tril(self.length)
        if self.own_mask is not None:
            missing = seen.shape[2] - self.own_mask.shape[1]
            seen = seen & torch.nn.functional.pad(self.own_mask, (0, missing), value=True)[:, None]
        slots = (1, 1) if len(seen) == 1 else (self.groups, self.size)
        hidden: Tensor = ~seen.unflatten(0, slots)[:, None, :, :, None]
        return hidden

    def attend(self, query_QMd: Tensor, key_hMd: Tensor, value_hMd: Tensor) -> Tensor:
        """Attention's output (M, Q, d) for scaled queries of Q heads, and h heads of new keys and values.

        Letters: U prompts of s slots each, W new tokens of a slot, g = Q / h queries of a head of keys.
        """
        heads, share = len(key_hMd), len(query_QMd) // len(key_hMd)
        query_UhsRd = self._to_slots(query_QMd).unflatten(3, (heads, share)).permute(0, 3, 1, 2, 4, 5).flatten(3, 4)
        keys, values = self._own(key_hMd, value_hMd)
        scores = query_UhsRd @ keys.transpose(3, 4)
        if self.hidden is not None:
            by_token = scores.unflatten(3, (self.width, share))
            scores = by_token.masked_fill(self.hidden.to(scores.device), -torch.inf).flatten(3, 4)
        mixed = self._with_prompt(query_UhsRd, scores, values) if self.prompts else _softmax(scores, values) @ values
        out_UsWhgd: Tensor = mixed.unflatten(3, (self.width, share)).permute(0, 2, 3, 1, 4, 5)
        out = out_UsWhgd.flatten(3, 4).flatten(0, 2)
        return out if self.slots_M is None else out.index_select(0, self.slots_M.to(out.device))

    def _with_prompt(self, query: Tensor, scores: Tensor, values: Tensor) -> Tensor:
        """One softmax over the prompt, which a group's slots ask together, and the slots' own positions."""
        prompt_keys, prompt_values = self.prompts[self.layer]
        slots, query = scores.shape[2:4], query.flatten(2, 3)
        far = query @ prompt_keys.transpose(2, 3)  # U h s·R S
        if self.prompt_mask is not None:
            far = far.masked_fill(~self.prompt_mask.to(far.device), -torch.inf)
        parts = [far, scores.flatten(2, 3)]
        if self.beginning:
            keys, all_values = self.beginning[self.layer]
            parts.append(_for_all(query, keys.transpose(1, 2)))
        weights = _softmax(torch.cat(parts, -1), values).split([part.shape[3] for part in parts], -1)
        mixed: Tensor = (weights[0] @ prompt_values).unflatten(2, slots) + weights[1].unflatten(2, slots) @ values
        return mixed + _for_all(weights[2], all_values).unflatten(2, slots) if self.beginning else mixed

    def _by_group(self, tensor_Zhxd: Tensor) -> Tensor:
        """Slots of a prompt side by side: (U, h, s, x, d)."""
        grouped: Tensor = tensor_Zhxd.unflatten(0, (self.groups, self.size)).transpose(1, 2)
        return grouped

    def _regroup(self, source_Z: Tensor, size: int) -> None:
        """Fill every slot with a copy of the one it is named, of groups that were of so many slots each."""
        group_Us, place_Us = (part.view(self.groups, self.size) for part in (source_Z // size, source_Z % size))
        blocks: dict[int, Tensor] = {}
        for heads in {key.shape[1] for key, _ in self.own}:
            head_h1 = torch.arange(heads, device=source_Z.device)[:, None]
            blocks[heads] = (group_Us[:, None] * heads + head_h1) * size + place_Us[:, None]
        self._replace(lambda tensor: _blocks(tensor, blocks[tensor.shape[1]]))

    def _replace(self, made: Callable[[Tensor], Tensor]) -> None:
        """Other keys and values for the slots' own, layer by layer, so that no two of all layers are held at a time."""
        for layer, (key, value) in enumerate(self.own):
            self.own[layer] = made(key), made(value)

    def _to_slots(self, tensor_xMd: Tensor) -> Tensor:
        """Tokens (x, M, d) where they belong: (U, s, W, x, d), zeros elsewhere."""
        tokens, slots = tensor_xMd.transpose(0, 1), self.groups * self.size
        if self.slots_M is not None:
            at_M = self.slots_M.to(tokens.device)
            tokens = tokens.new_zeros(slots * self.width, *tokens.shape[1:]).index_copy(0, at_M, tokens)
        placed: Tensor = tokens.unflatten(0, (self.groups, self.size, self.width))
        return placed

    def _own(self, key_hMd: Tensor, value_hMd: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's own keys and values, the new ones included."""
        key, value = (self._to_slots(new).permute(0, 3, 1, 2, 4) for new in (key_hMd, value_hMd))
        keys, values = self.own[self.layer]
        if not self.room:
            return torch.cat([keys, key], 3), torch.cat([values, value], 3)
        end = self.length + self.width
        keys[:, :, :, self.length : end], values[:, :, :, self.length : end] = key, value
        return keys[:, :, :, :end], values[:, :, :, :end]

    def keep(self, rows_M: Tensor) -> None:
        """Go on with these rows only, in this order; one that is named several times goes on in several ways.

        What they leave behind is given up once half of the slots would be empty, prompts once half have no rows.
        """
        self.place_R, self.next_R, self.in_order = self.place_R[rows_M], self.next_R[rows_M], False
        several = len(self.place_R.unique()) < len(self.place_R)
        asked = [self.prompt_of[slot // self.size] for slot in self.place_R.tolist()]
        there, left = dict.fromkeys(self.prompt_of), set(asked)
        kept = list(there) if 2 * len(left) > len(there) else []
        groups, size, places = arrange(asked, self._far if self.prompts else 0, self.own[0][0].shape[3], kept)
        if 2 * len(groups) * size > self.groups * self.size and not several:
            return
        device = self.place_R.device
        if groups != self.prompt_of:
            self._choose([self.prompt_of.index(prompt) for prompt in groups])
        source_Z = torch.zeros(len(groups) * size, dtype=torch.long, device=device)
        place_R = torch.tensor(places, device=device)
        source_Z[place_R] = self.place_R
        self.own_mask = None if self.own_mask is None else self.own_mask[source_Z]
        before, self.prompt_of, self.size, self.place_R = self.size, groups, size, place_R
        self._regroup(source_Z, before)
        self.in_order = places == list(range(len(groups) * size))

    def _choose(self, groups_U: list[int]) -> None:
        """Other groups' prompts, by the number of a group that has each now; those of neighbours are not copied."""
        first, end = groups_U[0], groups_U[0] + len(groups_U)
        if groups_U == list(range(first, end)):
            self.prompts = [(key[first:end], value[first:end]) for key, value in self.prompts]
        else:
            held = torch.tensor(groups_U, device=self.place_R.device)
            self.prompts = [_rows(held, *pair) for pair in self.prompts]
        self.prompt_mask = None if self.prompt_mask is None else self.prompt_mask[groups_U]


def _softmax(scores: Tensor, values: Tensor) -> Tensor:
    """Weights of positions, in the values' type."""
    return scores.softmax(-1, dtype=torch.float32).to(values.dtype)


def _for_all(rows_UhRx: Tensor, shared_hxy: Tensor) -> Tensor:
    """What (U, h, R, x) are times (h, x, y), one product for a head of all U."""
    together_hMx = rows_UhRx.transpose(0, 1).flatten(1, 2)
    found: Tensor = (together_hMx @ shared_hxy).unflatten(1, (len(rows_UhRx), -1)).transpose(0, 1)
    return found


def _after(shared_1hPd: Tensor, tensor_UhSd: Tensor) -> Tensor:
    """Every prompt after what all begin with."""
    return torch.cat([shared_1hPd.expand(len(tensor_UhSd), -1, -1, -1), tensor_UhSd], 2)


def _with_room(tensor_Uhsxd: Tensor, room: int) -> Tensor:
    """A copy that so many more positions can be written to."""
    length = tensor_Uhsxd.shape[3]
    roomy = tensor_Uhsxd.new_empty(*tensor_Uhsxd.shape[:3], length + room, tensor_Uhsxd.shape[4])
    roomy[:, :, :, :length] = tensor_Uhsxd
    return roomy


def _blocks(tensor: Tensor, blocks_Uhs: Tensor) -> Tensor:
    """Some (x, d) of a tensor, by their number: (U, h, s, x, d)."""
    taken = tensor.flatten(0, -3).index_select(0, blocks_Uhs.flatten().to(tensor.device))
    return taken.view(*blocks_Uhs.shape, *tensor.shape[-2:])


def _rows(rows_M: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of a layer's keys and values, which may lie on another device than what is known of the rows."""
    rows_M = rows_M.to(key.device)
    return key.index_select(0, rows_M), value.index_select(0, rows_M)
