"""Continuous batching: prompts join the batch that is being decoded between two tokens, and leave it when they end.

As in Orca (Yu et al. 2022), whoever asks waits for his own tokens and for nobody else's. Each prompt's row has its own
limit, temperature, generator and end; what it is answered goes into its own future, so answers cannot be mixed up.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from dlr_core.records import PromptCache
from dlr_core.stacking import stack
from dlr_plugins.decoders.cache_name import CACHE
from dlr_plugins.decoders.drawing import inverse_cdf, likeliest
from dlr_plugins.decoders.growing import growing_cache
from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.serving.refusal import Refusal

ROOM = 32
"""Tokens that the cache has room for before it is copied into a larger one."""
PREFILLED = 16_384
"""Positions, padding included, that join at once, if more than one prompt does: a bound on memory."""
LEAST = -9999.0
"""What stands for a log-probability that is no number, as in vLLM."""


@dataclass(frozen=True)
class Finished:
    """One prompt's completion."""

    ids: list[int]
    """Its end token included."""
    log_probs: list[float]
    """Of each token, in nats, before the temperature."""
    stopped: bool
    """It ended by itself, not at its limit."""


@dataclass(eq=False)
class Row:
    """One prompt being completed."""

    embeds_PH: Tensor
    limit: int
    temperature: float
    ends: frozenset[int]
    generator: np.random.Generator
    answer: "Future[Finished]" = field(default_factory=Future)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)


@dataclass
class Counts:
    """What has been done since the start."""

    steps: int = 0
    """Passes that gave every row of a batch one token."""
    tokens: int = 0
    answered: int = 0

    @property
    def mean_batch(self) -> float:
        """Rows in a pass, on average."""
        return self.tokens / max(self.steps, 1)


class Batcher:
    """Completes prompts on one model, in one thread, as many together as have come.

    Args:
        decoder: the model.
        rows: most prompts decoded together.
        waiting: most prompts that may wait; more are refused.
        log: told of every batch that prompts join, in a line.
    """

    def __init__(
        self, decoder: HFDecoder, *, rows: int = 64, waiting: int = 4096, log: Callable[[str], None] = lambda line: None
    ) -> None:
        self.decoder, self.most, self.most_waiting, self.log = decoder, rows, waiting, log
        self.counts = Counts()
        self._news = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._closing = False
        self._room = 0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    # ---- from any thread -----------------------------------------------------------------------------------------

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue prompts; each row's ``answer`` is set when it has ended.

        Raises:
            Refusal: too many wait, or the server is being stopped.
        """
        with self._news:
            if self._closing:
                raise Refusal("the server is being stopped", 503)
            if len(self._waiting) + len(rows) > self.most_waiting:
                raise Refusal(f"{len(self._waiting)} prompts are waiting: ask again later", 429)
            self._waiting.extend(rows)
            self._news.notify()

    @property
    def load(self) -> tuple[int, int]:
        """Prompts being decoded, and waiting."""
        return len(self._running), len(self._waiting)

    def close(self, timeout: float | None = None) -> None:
        """Take no more prompts, finish those that came, and end the thread."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(timeout)

    # ---- in the one thread that computes -------------------------------------------------------------------------

    @torch.no_grad()
    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._waiting or self._running)
                if not self._waiting and not self._running:
                    return
                joining = self._next()
            try:
                if joining:
                    self._join(joining)
                if self._running:
                    self._step()
            except Exception as error:  # one bad batch must not end the server
                reason = str(error).strip().partition("\n")[0]
                self.log(f"a batch failed: {type(error).__name__}: {reason}")
                for row in {*self._running, *joining}:
                    if not row.answer.done():
                        row.answer.set_exception(Refusal("the model could not complete this batch", 500))
                self._running = []

    def _next(self) -> list[Row]:
        """Who joins now: first come, first served."""
        joining: list[Row] = []
        width = 0
        while self._waiting and len(self._running) + len(joining) < self.most:
            width = max(width, len(self._waiting[0].embeds_PH))
            if joining and width * (len(joining) + 1) > PREFILLED:
                break
            row = self._waiting.popleft()
            if row.answer.set_running_or_notify_cancel():
                joining.append(row)
        return joining

    def _join(self, joining: list[Row]) -> None:
        """Prefill prompts and put them into the batch, beside those that are being decoded."""
        fresh = self._prefill(joining)
        batch = stack([self._trimmed(), fresh]) if self._running else fresh
        self._running = [*self._running, *joining]
        self._hold(batch)
        read, others = int(fresh.mask_NS.sum()) + len(joining), len(self._waiting)
        self.log(f"batch of {len(self._running)}: {len(joining)} joined with {read} positions, {others} wait")

    def _prefill(self, rows: list[Row]) -> PromptCache:
        """Every prompt but its last position, which is left to be fed; rows are padded on the left."""
        decoder = self.decoder
        bodies = [row.embeds_PH.to(decoder.device, decoder.dtype) for row in rows]
        last_N1H = torch.stack([body[-1:] for body in bodies])
        width, count = max(len(body) for body in bodies) - 1, len(rows)
        mask_NS = torch.zeros(count, width, dtype=torch.long, device=decoder.device)
        embeds_NSH = torch.zeros(count, width, decoder.hidden_size, device=decoder.device, dtype=decoder.dtype)
        for number, body in enumerate(bodies):
            mask_NS[number, width - len(body) + 1 :] = 1
            embeds_NSH[number, width - len(body) + 1 :] = body[:-1]
        cache = DynamicCache()
        if width:
            decoder.body(
                inputs_embeds=embeds_NSH,
                attention_mask=mask_NS,
                position_ids=(mask_NS.cumsum(1) - 1).clamp(min=0),
                **{CACHE: cache},
                use_cache=True,
            )
            keys, values = tuple(x.keys for x in cache.layers), tuple(x.values for x in cache.layers)
        else:
            empty = [embeds_NSH.new_zeros(count, heads, 0, size) for heads, size in decoder.kv_sizes]
            keys = values = tuple(empty)
        return PromptCache(keys, values, mask_NS, embeds_NSH[..., :0], last_N1H, 0)

    def _hold(self, batch: PromptCache) -> None:
        """Make this the batch, with room to grow."""
        self._mask_NS, self._pending_N1H, self._room = batch.mask_NS, batch.pending_NPH, ROOM
        self._cache = growing_cache(batch, ROOM)

    def _trimmed(self) -> PromptCache:
        """The batch as it stands, without the positions that are padding in every row."""
        used = self._mask_NS.any(0).nonzero()
        first = int(used[0]) if len(used) else self._mask_NS.shape[1]
        mask_NS = self._mask_NS[:, first:]
        layers = self._cache.layers
        keys = tuple(layer.keys[:, :, first:] for layer in layers)
        values = tuple(layer.values[:, :, first:] for layer in layers)
        states = self._pending_N1H.new_zeros(*mask_NS.shape, 0)
        return PromptCache(keys, values, mask_NS, states, self._pending_N1H, 0)

    def _step(self) -> None:
        """One token for every row; rows that have ended are answered and leave."""
        if not self._room:
            self._hold(self._trimmed())
        rows, decoder = self._running, self.decoder
        self._mask_NS = torch.cat([self._mask_NS, self._mask_NS.new_ones(len(rows), 1)], 1)
        logits_NV = decoder.model(
            inputs_embeds=self._pending_N1H,
            attention_mask=self._mask_NS,
            position_ids=(self._mask_NS.cumsum(1) - 1)[:, -1:],
            **{CACHE: self._cache},
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1].float()  # fmt: skip
        self._room -= 1
        self.counts.steps += 1
        self.counts.tokens += len(rows)
        token_N = self._choose(logits_NV)
        nats_N = logits_NV.log_softmax(-1).gather(1, token_N[:, None])[:, 0]
        going = []
        for number, (row, token, nats) in enumerate(zip(rows, token_N.tolist(), nats_N.tolist(), strict=True)):
            row.ids.append(token)
            row.log_probs.append(max(LEAST, nats))
            stopped = token in row.ends
            if stopped or len(row.ids) == row.limit:
                self.counts.answered += 1
                row.answer.set_result(Finished(row.ids, row.log_probs, stopped))
            else:
                going.append(number)
        self._running = [rows[number] for number in going]
        if not going:
            return
        if len(going) < len(rows):
            kept = torch.tensor(going, device=token_N.device)
            token_N, self._mask_NS = token_N[kept], self._mask_NS[kept]
            self._cache.batch_select_indices(kept)
        self._pending_N1H = decoder.model.get_input_embeddings()(token_N)[:, None]

    def _choose(self, logits_NV: Tensor) -> Tensor:
        """The best token of greedy rows; of the others one drawn by the row's own generator."""
        token_N = likeliest(logits_NV)
        drawn = [number for number, row in enumerate(self._running) if row.temperature > 0]
        if drawn:
            rows = [self._running[number] for number in drawn]
            heat_M1 = torch.tensor([[row.temperature] for row in rows], device=logits_NV.device)
            uniform_M = torch.tensor([row.generator.random() for row in rows], device=logits_NV.device)
            token_N[drawn] = inverse_cdf(logits_NV[drawn] / heat_M1, uniform_M)
        return token_N
