"""`hf`, several tokens a pass where the text repeats itself: prompt-lookup drafting.

What followed the newest tokens where they stood before, in the prompt or in the completion, is a guess at what follows
them now (prompt lookup decoding, Saxena 2023; as ``prompt_lookup_num_tokens`` in Transformers). One pass of the
frozen model over the guess says how much of it the model would have written: that much is kept, and one token of the
model's own. So completions are those of `hf`, near-ties aside, in fewer passes; READER (Divilkovskiy et al. 2025, arXiv
2508.09072) drafts whole trees of such guesses, and for large batches. Tokens may be sampled too: a row draws one number
a token, as it does under `hf`, and a guess is kept where the draw falls on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import DynamicCache

from dlr_core.cost import Usage
from dlr_core.protocols import Steer
from dlr_core.records import Completions, PromptCache
from dlr_plugins.decoders.cache_name import CACHE
from dlr_plugins.decoders.drawing import choose, entropy_of
from dlr_plugins.decoders.growing import GrowingLayer
from dlr_plugins.decoders.hf import HFDecoder

UNKNOWN = -1
"""Stands where a text has a position that is no token: it ends a guess, and nothing matches it."""


@dataclass
class DraftUsage(Usage):
    """Usage, and what drafting was worth."""

    forwards: int = 0
    """Passes made while completing."""
    forwards_saved: int = 0
    """Passes fewer than one a token."""
    drafted: int = 0
    """Tokens guessed."""
    accepted: int = 0
    """Those of them that the model would have written."""


class LookupDecoder(HFDecoder):
    """`hf`, drafting tokens from the prompt and verifying them in one pass: the same completions in fewer passes."""

    copies_prompts = True

    class Options(HFDecoder.Options):
        """Settings of ``lookup``."""

        draft: int = Field(8, ge=1, description="Most tokens guessed at a time.")
        ngram: int = Field(3, ge=1, description="Newest tokens that are looked up together; fewer if they are nowhere.")

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.draft, self.ngram = options.draft, options.ngram
        self.usage: DraftUsage = DraftUsage()

    # ---- what stands in a prompt ---------------------------------------------------------------------------------

    def prefill(
        self, questions: Sequence[str], anchor: Sequence[int], pending: Sequence[int], latents: int
    ) -> PromptCache:
        """As `hf`, with the ids of what was cached."""
        cache = super().prefill(questions, anchor, pending, latents)
        left = len(pending) or (0 if latents else 1)
        rows = [[*self.prompt_ids(question), *anchor, *pending] for question in questions]
        ids = [token for row in rows for token in row[: len(row) - left]]
        ids_NS = torch.full_like(cache.mask_NS, UNKNOWN)
        ids_NS[cache.mask_NS.bool()] = torch.tensor(ids, device=self.device)
        return replace(cache, ids_NS=ids_NS)

    def grow(self, cache: PromptCache, embeds_NPH: Tensor, steer: Steer | None = None) -> PromptCache:
        """As `hf`; what was fed are embeddings, so their ids are unknown."""
        grown = super().grow(cache, embeds_NPH, steer)
        if cache.ids_NS is None:
            return grown
        fed_NP = cache.ids_NS.new_full(embeds_NPH.shape[:2], UNKNOWN)
        return replace(grown, ids_NS=torch.cat([cache.ids_NS, fed_NP], 1))

    # ---- completions ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(
        self,
        cache: PromptCache,
        max_new_tokens: int,
        temperature: float = 0.0,
        generators: Sequence[np.random.Generator] | None = None,
        *,
        entropy: bool = False,
    ) -> Completions:
        """Complete every row, dropping finished ones from the batch; each row keeps as much of its guess as is right.

        A pass feeds W positions: every row's newest token and its guess, W being that of the longest. What a row
        guessed wrong, and what it had no guess for, stays masked; columns that no row can use are dropped.
        """
        self.check_completable(cache, max_new_tokens, temperature, generators)
        cache, ends = cache.whole(), set(self.end_ids.tolist())
        known = _texts(cache)
        written: list[list[int]] = [[] for _ in known]
        nats = [0.0] * len(known)
        alive = list(range(cache.rows))
        drafts: list[list[int]] = [[] for _ in alive]
        embeds, mask_AS = cache.pending_NPH, cache.mask_NS
        fed_AW = mask_AS.new_ones(embeds.shape[:2])
        kv = _drafting_cache(cache, embeds.shape[1] + max_new_tokens)
        forwards = 0
        while True:
            mask_AS = torch.cat([mask_AS, fed_AW], 1)
            width, places = fed_AW.shape[1], 1 + max(map(len, drafts))
            logits_AWV = self.model(
                inputs_embeds=embeds,
                attention_mask=mask_AS,
                position_ids=(mask_AS.cumsum(1) - 1)[:, -width:],
                **{CACHE: kv},
                use_cache=True,
                logits_to_keep=places,
            ).logits
            forwards += 1
            self.usage.decoded += len(alive) * width
            self.usage.logits += len(alive) * places
            self.usage.drafted += sum(map(len, drafts))
            kept = [0] * len(alive)
            going = list(range(len(alive)))
            for place in range(places):
                logits_MV = logits_AWV[going, place].float()
                rows = [alive[row] for row in going]
                tokens = choose(logits_MV, temperature, generators, rows).tolist()
                if entropy:
                    for number, undecided in zip(rows, entropy_of(logits_MV).tolist(), strict=True):
                        nats[number] += undecided
                right = []
                for row, number, token in zip(going, rows, tokens, strict=True):
                    written[number].append(token)
                    if drafts[row][place : place + 1] == [token]:  # an end token is never guessed
                        kept[row] += 1
                        right.append(row)
                going = right
                if not going:
                    break
            self.usage.accepted += sum(kept)
            left = [
                row
                for row, number in enumerate(alive)
                if written[number][-1] not in ends and len(written[number]) < max_new_tokens
            ]
            if not left:
                break
            if places > 1:
                columns = torch.arange(places, device=self.device)
                mask_AS[:, -places:] *= columns <= torch.tensor(kept, device=self.device)[:, None]
            if len(left) < len(alive):
                chosen = torch.tensor(left, device=self.device)
                kv.batch_select_indices(chosen)
                mask_AS = mask_AS[chosen]
            useless = places - 1 - max(kept[row] for row in left)
            for layer in kv.layers:
                layer.drop(useless)
            mask_AS = mask_AS[:, : mask_AS.shape[1] - useless]
            alive = [alive[row] for row in left]
            drafts = [
                look_up(known[n], written[n], self.ngram, min(self.draft, max_new_tokens - len(written[n]) - 1), ends)
                for n in alive
            ]
            ids_AW, fed_AW = self._block([[written[n][-1], *draft] for n, draft in zip(alive, drafts, strict=True)])
            embeds = self.model.get_input_embeddings()(ids_AW)
        self.usage.forwards += forwards
        self.usage.forwards_saved += max(map(len, written)) - forwards
        return self._completions(written, ends, nats if entropy else None)

    def _block(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Rows as ids and mask (A, W), padded at the end."""
        width, end = max(map(len, rows)), int(self.end_ids[0])
        ids = [[*row, *[end] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _completions(self, written: Sequence[Sequence[int]], ends: set[int], nats: list[float] | None) -> Completions:
        ids_NL, mask_NL = self._block(written)
        texts = [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in written]
        ended_N = torch.tensor([row[-1] in ends for row in written], device=self.device)
        mean = None
        if nats is not None:
            mean = torch.tensor(nats, device=self.device) / mask_NL.sum(1)
        return Completions(ids_NL, mask_NL.float(), texts, ended_N, mean)


def look_up(known: Sequence[int], written: Sequence[int], ngram: int, count: int, ends: set[int]) -> list[int]:
    """A guess at what follows: what followed the newest tokens where they first stood.

    Args:
        known: the prompt.
        written: the completion so far, after something that is not known.
        ngram: how many of its newest tokens are looked for; one fewer, if nothing follows them anywhere, and so on.
        count: most tokens to guess.
        ends: tokens that are never guessed.
    """
    text = [*known, UNKNOWN, *written]
    for size in range(min(ngram, len(written)) if count > 0 else 0, 0, -1):
        newest = text[-size:]
        for start in range(len(text) - size):
            if text[start : start + size] == newest:
                found = text[start + size : start + size + count]
                stop = next((place for place, token in enumerate(found) if token == UNKNOWN or token in ends), count)
                if found[:stop]:
                    return found[:stop]
    return []


def _texts(cache: PromptCache) -> list[list[int]]:
    """The ids of every prompt, padding left out; nothing where they are not kept."""
    if cache.ids_NS is None:
        return [[] for _ in range(cache.rows)]
    return [ids[mask.bool()].tolist() for ids, mask in zip(cache.ids_NS, cache.mask_NS, strict=True)]


class _DraftingLayer(GrowingLayer):
    """Columns may be taken back, and there is always room for more."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        missing = self.length + key_states.shape[2] - self.stores[0].shape[2]
        if missing > 0:  # rows that take turns in guessing right use more columns than any of them writes tokens
            room = (0, 0, 0, missing + self.length // 2)
            self.stores = [torch.nn.functional.pad(store, room) for store in self.stores]
        return super().update(key_states, value_states, *args, **kwargs)

    def drop(self, count: int) -> None:
        self.length -= count
        self._show()


def _drafting_cache(cache: PromptCache, room: int) -> DynamicCache:
    kept = DynamicCache()
    kept.layers = [_DraftingLayer(key, value, room) for key, value in zip(cache.keys, cache.values, strict=True)]
    return kept
