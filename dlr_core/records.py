"""The typed records that pass between tasks, environments, rewards and the trainer.

Dimension letters, used as suffixes throughout: B questions in a batch, G latent chains sampled per question, K chains
decoded per question, N rows (usually B·K), T latents in a chain, D latent width, H the main model's hidden width, S
prompt positions, L completion tokens, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dlr_core.memory import FEW


@dataclass(frozen=True)
class Item:
    """One question of a task."""

    question: str
    answer: str
    index: int
    """Position within its split."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


FindItem = Callable[[int], Item]
"""A split's question by its position."""


@dataclass(frozen=True)
class Verdict:
    """What a task says of a completion."""

    parsed: str | None
    """The answer found in the text, normalised; None if there is none."""
    correct: float
    """1 if right, 0 if wrong; tasks with partial credit may lie between."""
    format: float
    """1 if the completion keeps the answer template, else 0."""


FULLY_RIGHT = 0.99
"""From this correctness on an answer is right; below it, it has partial credit at most."""


@dataclass(frozen=True)
class Sample:
    """One decoded chain, judged: what a reward sees."""

    question: str
    answer: str
    completion: str
    parsed: str | None
    correct: float
    format: float
    tokens: int
    """Completion tokens, the end token included."""
    ended: bool
    """Whether the model ended by itself within the token limit."""
    entropy: float | None = field(default=None, compare=False)
    """Mean entropy, in nats, of the distributions its tokens came from; None where the decoder does not report it.

    Its last digits vary with the batch's shape, so it takes no part in comparisons.
    """

    @property
    def fully_right(self) -> bool:
        """Right, and not only in part."""
        return self.correct >= FULLY_RIGHT


Written = tuple[list[int], str, bool]
"""A completion's ids, its text, and whether it ended by itself."""


@dataclass(frozen=True)
class Completions:
    """A batch of decoded token sequences."""

    ids_NL: Tensor
    """int64; positions after the end hold the end token."""
    mask_NL: Tensor
    """1.0 on generated tokens (the end token included), 0.0 after them."""
    texts: list[str]
    ended_N: Tensor
    """bool: the end token was produced within the limit."""
    entropy_N: Tensor | None = None
    """Mean over generated tokens of the entropy (nats, temperature 1) they were chosen at, the end token included."""
    log_prob_NL: Tensor | None = None
    """Log-probability (nats, temperature 1) of every generated token as it was chosen, 0 after them; None where the
    decoder does not report it."""

    @classmethod
    def of(cls, rows: Sequence[Written], device: torch.device) -> "Completions":
        """Completions written row by row, one at least."""
        length = max(len(ids) for ids, _, _ in rows)
        padded = [[*ids, *ids[-1:] * (length - len(ids))] for ids, _, _ in rows]
        kept = [[1.0] * len(ids) + [0.0] * (length - len(ids)) for ids, _, _ in rows]
        return cls(
            torch.tensor(padded, device=device),
            torch.tensor(kept, device=device),
            [text for _, text, _ in rows],
            torch.tensor([ended for _, _, ended in rows], device=device),
        )

    def written(self) -> list[Written]:
        """Each row's ids, text and end."""
        ids = [row[kept.bool()].tolist() for row, kept in zip(self.ids_NL, self.mask_NL, strict=True)]
        return list(zip(ids, self.texts, self.ended_N.tolist(), strict=True))

    def rows(self, part: slice) -> "Completions":
        """Some rows: their ids, texts and ends."""
        return Completions(self.ids_NL[part], self.mask_NL[part], self.texts[part], self.ended_N[part])


@dataclass(frozen=True)
class Beginning:
    """The first positions of prompts that begin alike, computed once: P of them, one row."""

    ids: tuple[int, ...]
    """Their tokens: those of equal ids are equal to the last bit."""
    keys: tuple[Tensor, ...]
    """One (1, kv heads, P, head width) tensor per layer."""
    values: tuple[Tensor, ...]
    states_1PH: Tensor

    @property
    def length(self) -> int:
        """P."""
        return len(self.ids)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values, self.states_1PH))

    def crop(self, end: int) -> "Beginning":
        """The first ``end`` positions at most."""
        keys, values = (tuple(tensor[:, :, :end] for tensor in tensors) for tensors in (self.keys, self.values))
        return Beginning(self.ids[:end], keys, values, self.states_1PH[:, :end])


@dataclass(frozen=True)
class Trunk:
    """What rows go on from, each held once however many do: U prompts, and before them what all of these begin with."""

    keys: tuple[Tensor, ...]
    """One (U, kv heads, positions after the beginning, head width) tensor per layer."""
    values: tuple[Tensor, ...]
    rows_N: Tensor
    """int64: which of the U each row goes on from."""
    beginning: Beginning | None = None
    """Positions before them, held once for all U."""

    @property
    def fixed(self) -> int:
        """Positions of the beginning."""
        return self.beginning.length if self.beginning else 0

    @property
    def length(self) -> int:
        """Positions of each, the beginning included."""
        return self.fixed + int(self.keys[0].shape[2])

    def crop(self, end: int) -> "Trunk":
        """The first ``end`` positions at most."""
        own = max(0, end - self.fixed)
        keys, values = (tuple(tensor[:, :, :own] for tensor in tensors) for tensors in (self.keys, self.values))
        return Trunk(keys, values, self.rows_N, self.beginning and self.beginning.crop(end))


@dataclass(frozen=True)
class PromptCache:
    """What the frozen model remembers of a batch of prompts; rows are padded on the left, after what all begin with.

    The last ``num_latents`` positions hold the anchor's latent tokens; ``pending_NPH`` are input embeddings not yet
    fed, with which decoding starts.
    """

    keys: tuple[Tensor, ...]
    """One (N, kv heads, S, head width) tensor per layer, already rotated where the model rotates keys.

    Of a model that is spread over devices each lies on its layer's; everything else on that of the inputs.
    """
    values: tuple[Tensor, ...]
    mask_NS: Tensor
    """int64: 1 on real positions."""
    states_NSH: Tensor
    """Final-norm hidden states of every cached position (arbitrary on padding)."""
    pending_NPH: Tensor
    num_latents: int
    trunk: Trunk | None = None
    """What rows have in common. With one, keys and values hold the positions after it; all else covers both."""
    ids_NS: Tensor | None = None
    """Token ids of the cached positions, where the decoder keeps them; what stands on padding means nothing."""
    beginning: Beginning | None = None
    """What the first positions of all rows are a copy of, where the decoder keeps it for the next prompts; None after
    a change to those."""

    @property
    def rows(self) -> int:
        """Number of prompts held."""
        return int(self.mask_NS.shape[0])

    @property
    def positions_NS(self) -> Tensor:
        """Position of every cached token in its own text, 0 on padding."""
        return (self.mask_NS.cumsum(1) - 1).clamp(min=0)

    def select(self, rows_M: Tensor) -> "PromptCache":
        """The cache of chosen rows, repeats allowed; a trunk is held by both."""
        return PromptCache(
            tuple(k.index_select(0, rows_M.to(k.device)) for k in self.keys),
            tuple(v.index_select(0, rows_M.to(v.device)) for v in self.values),
            self.mask_NS.index_select(0, rows_M),
            self.states_NSH.index_select(0, rows_M),
            self.pending_NPH.index_select(0, rows_M),
            self.num_latents,
            self.trunk and replace(self.trunk, rows_N=self.trunk.rows_N[rows_M]),
            None if self.ids_NS is None else self.ids_NS[rows_M],
            self.beginning,
        )

    def share(self, rows_M: Tensor) -> "PromptCache":
        """The cache of chosen rows; only their latent positions are copied: many chains, one copy of each question."""
        if self.trunk is not None:
            return self.select(rows_M)
        begun = self.beginning if self.rows > FEW else None
        common = begun and begun.crop(self.mask_NS.shape[1] - self.num_latents)
        return self.on_trunk(common, common.length if common else 0).select(rows_M)

    def on_trunk(self, beginning: Beginning | None = None, first: int = 0) -> "PromptCache":
        """Every row on a trunk of its own that ends before its latents; nothing is copied.

        Args:
            beginning: what all rows begin with, if that is held apart.
            first: position in keys and values from which on trunks go on from it.
        """
        end = self.keys[0].shape[2] - self.num_latents
        keys, values = (tuple(tensor[:, :, first:end] for tensor in tensors) for tensors in (self.keys, self.values))
        return replace(
            self,
            keys=tuple(key[:, :, end:] for key in self.keys),
            values=tuple(value[:, :, end:] for value in self.values),
            trunk=Trunk(keys, values, torch.arange(self.rows, device=self.mask_NS.device), beginning),
            beginning=beginning,
        )

    def whole(self) -> "PromptCache":
        """The same without a trunk: every row has all its positions to itself."""
        if self.trunk is None:
            return self
        trunk, start = self.trunk, self.trunk.beginning

        def joined(shared: Sequence[Tensor], own: Sequence[Tensor], first: Sequence[Tensor]) -> tuple[Tensor, ...]:
            rests = [[part[trunk.rows_N.to(part.device)], mine] for part, mine in zip(shared, own, strict=True)]
            fronts = [[each.expand(self.rows, -1, -1, -1)] for each in first] or [[]] * len(rests)
            return tuple(torch.cat([*front, *rest], 2) for front, rest in zip(fronts, rests, strict=True))

        keys = joined(trunk.keys, self.keys, start.keys if start else ())
        values = joined(trunk.values, self.values, start.values if start else ())
        return replace(self, keys=keys, values=values, trunk=None)

    def crop(self, end: int) -> "PromptCache":
        """The first ``end`` positions, none of them latent any more."""
        trunk = self.trunk and self.trunk.crop(end)
        left = end - (trunk.length if trunk else 0)
        return PromptCache(
            tuple(k[:, :, :left] for k in self.keys),
            tuple(v[:, :, :left] for v in self.values),
            self.mask_NS[:, :end],
            self.states_NSH[:, :end],
            self.pending_NPH,
            0,
            trunk,
            None if self.ids_NS is None else self.ids_NS[:, :end],
        )

    def question_states(self) -> tuple[Tensor, Tensor]:
        """States (N, S-T, H) and mask (N, S-T) of the question alone, latent positions left out."""
        end = self.mask_NS.shape[1] - self.num_latents
        return self.states_NSH[:, :end], self.mask_NS[:, :end]
