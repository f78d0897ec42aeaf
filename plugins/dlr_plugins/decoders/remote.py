"""Decoding on a server: vLLM with ``--enable-prompt-embeds``, or ``dlr serve``.

The frozen model's weights never change, so a server needs no synchronisation with training: prompts go there as input
embeddings, latents among them, and completions come back. What the assistant reads has to be here. With
``states=model`` the frozen model is loaded here too, and runs once over every question (never over completions): states
and observations are those of ``hf``. With ``states=embeddings`` only its tokenizer and input embeddings are: the
assistant reads the question's token embeddings, and has to make sense of them itself.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlr_core.errors import ConfigError, ModelError
from dlr_core.records import Completions, PromptCache
from dlr_plugins.decoders.completions import Choice, CompletionsClient
from dlr_plugins.decoders.drawing import check_generators
from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.decoders.table import EmbeddingTable
from dlr_plugins.serving import wire

OURS = ("device", "dtype", "hidden_size", "end_ids", "tokenizer", "usage", "flops_per_token", "encode", "token",
        "prompt_ids", "encode_targets", "texts", "embedding_table", "state_bound", "fingerprint")  # fmt: skip
"""What is asked of the part of the model that is here."""
PROBES = ("Name three colours.", "How much is 12 + 30?", "Say something.")
PROBE_TOKENS = 8
DOUBT = 0.3
"""Nats a token, on average, by which a server's log-probs may differ from the local model's: it may be quantised."""
REQUEST_BYTES = 16 << 20
"""Prompts are sent in requests of at most this size, and at least one prompt."""

Job = tuple[list[str], int | None]


class RemoteDecoder:
    """Completions from a server, by input embeddings; no gradient of the main model."""

    gives_gradient = False
    embeddings_only = True
    reports_entropy = False
    needs_server = True

    class Options(HFDecoder.Options):
        """Settings of ``remote``; ``model``, ``device`` and ``dtype`` are of what is loaded here."""

        url: str = Field("http://127.0.0.1:8000/v1", description="The server, vLLM or dlr serve.")
        served_model: str | None = Field(None, description="Its name for the model; the first it lists if not given.")
        states: Literal["model", "embeddings"] = Field(
            "model",
            description="What the assistant reads: hidden states of the main model, which is loaded here as well and "
            "runs over questions only; or token embeddings, all that is then loaded.",
        )
        timeout: float = Field(120.0, gt=0, description="Seconds that the server may take to answer a request.")
        retries: int = Field(4, ge=0, description="Times a request is made again that got no answer, or a 5xx.")
        requests: int = Field(8, ge=1, le=256, description="Requests in flight at once.")
        rows: int = Field(32, ge=1, le=256, description="Most prompts in a request; one where tokens are sampled.")

    def __init__(self, options: Options) -> None:
        self.options = options
        # First of all: a server that is not there should be said before a model is loaded.
        self.client = CompletionsClient(
            options.url, model=options.served_model, timeout=options.timeout, retries=options.retries
        )
        self.local: Any
        self.embed: Callable[[Tensor], Tensor]
        if options.states == "embeddings":
            self.local = EmbeddingTable(options.model, options.device, options.dtype)
            self.embed = self.local.embed
        else:
            own = {name: getattr(options, name) for name in HFDecoder.Options.model_fields}
            self.local = HFDecoder(HFDecoder.Options.model_validate(own))
            self.embed = self.local.model.get_input_embeddings()
        self._probe()

    def __getattr__(self, name: str) -> Any:
        if name in OURS:
            return getattr(self.local, name)
        raise AttributeError(f"decoder 'remote' has no {name}")

    @torch.no_grad()
    def _probe(self) -> None:
        """Complete a few plain prompts, so that what is wrong with the server is known before anything is trained.

        Raises:
            ModelError: it takes no embeddings, or they are another model's.
        """
        done = self.decode(self.prefill(PROBES, [], [], 0), PROBE_TOKENS)
        if done.log_prob_NL is None or self.options.states == "embeddings":
            return
        count, length = done.ids_NL.shape
        rows = torch.arange(count, device=self.device).repeat_interleave(length)
        each = torch.eye(length, device=self.device).repeat(count, 1)  # one token of every row
        cache = self.local.prefill(PROBES, [], [], 0).select(rows)
        here_NL = self.local.log_prob(cache, done.ids_NL[rows], each).view(count, length)
        gap = float((here_NL - done.log_prob_NL).abs()[done.mask_NL.bool()].mean())
        if not gap <= DOUBT:
            raise ModelError(
                f"{self.options.url} serves another model than decoder.model={self.options.model!r}: on test prompts "
                f"their log-probs differ by {gap:.2f} nats a token"
            )

    # ---- prompts -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prefill(
        self, questions: Sequence[str], anchor: Sequence[int], pending: Sequence[int], latents: int
    ) -> PromptCache:
        """Read questions and anchor here, as far as the model is here.

        What the cache remembers of a position is its input embedding, as the keys (N, 1, S, H) of one layer: that is
        what a server is sent. Its values are empty.
        """
        cache: PromptCache = self.local.prefill(questions, anchor, pending, latents)
        left = cache.pending_NPH.shape[1]
        rows = [[*self.prompt_ids(question), *anchor, *pending] for question in questions]
        ids_M = torch.tensor([token for row in rows for token in row[: len(row) - left]], device=self.device)
        embeds_NSH = cache.states_NSH.new_zeros(*cache.mask_NS.shape, self.hidden_size, dtype=self.dtype)
        embeds_NSH[cache.mask_NS.bool()] = self.embed(ids_M)
        return replace(cache, keys=(embeds_NSH[:, None],), values=(embeds_NSH[:, None, :, :0],))

    @torch.no_grad()
    def extend(self, cache: PromptCache, embeds_NPH: Tensor) -> Tensor:
        """States (N, P, H) of embeddings after a cache, which is read again from its beginning."""
        embeds_NSH = torch.cat([cache.keys[0][:, 0], embeds_NPH.to(self.dtype)], 1)
        mask_NS = torch.cat([cache.mask_NS, cache.mask_NS.new_ones(embeds_NPH.shape[:2])], 1)
        if self.options.states == "embeddings":
            return embeds_NPH
        self.usage.prefilled += mask_NS.numel()
        positions = (mask_NS.cumsum(1) - 1).clamp(min=0)
        out = self.local.body(inputs_embeds=embeds_NSH, attention_mask=mask_NS, position_ids=positions)
        states: Tensor = out.last_hidden_state[:, -embeds_NPH.shape[1] :]
        return states

    # ---- completions ---------------------------------------------------------------------------------------------

    def prompts(self, cache: PromptCache) -> list[Tensor]:
        """What a server is sent of each row: its input embeddings (P, H), pending ones included."""
        embeds_NSH, real_NS = cache.keys[0][:, 0], cache.mask_NS.bool()
        return [
            torch.cat([embeds[real], pending.to(self.dtype)])
            for embeds, real, pending in zip(embeds_NSH, real_NS, cache.pending_NPH, strict=True)
        ]

    @torch.no_grad()
    def decode(
        self,
        cache: PromptCache,
        max_new_tokens: int,
        temperature: float = 0.0,
        generators: Sequence[np.random.Generator] | None = None,
    ) -> Completions:
        """Complete every row on the server; greedy at temperature 0.

        Where tokens are sampled, each row is a request of its own with a seed from its own generator: the same
        generators give the same text again from the same server, but not the text that ``hf`` draws with them.

        Raises:
            ModelError: no answer, or a refusal.
        """
        check_generators(temperature, generators, cache.rows)
        prompts = self.prompts(cache)
        seeds = [int(generator.integers(2**63)) for generator in generators or ()] if temperature > 0 else None
        jobs = self._jobs([wire.encode(prompt) for prompt in prompts], seeds)
        stop_ids = self.end_ids.tolist()

        def ask(job: Job) -> list[Choice]:
            texts, seed = job
            return self.client.complete(
                texts, max_tokens=max_new_tokens, temperature=temperature, seed=seed, stop_ids=stop_ids
            )

        pool = ThreadPoolExecutor(min(self.options.requests, len(jobs)))
        try:
            choices = [choice for found in pool.map(ask, jobs) for choice in found]
        finally:
            pool.shutdown(cancel_futures=True)
        return self._completions(choices, sum(map(len, prompts)), max_new_tokens)

    def _jobs(self, texts: Sequence[str], seeds: Sequence[int] | None) -> list[Job]:
        """What goes into each request."""
        if seeds is not None:
            return [([text], seed) for text, seed in zip(texts, seeds, strict=True)]
        share = -(-len(texts) // self.options.requests)  # few prompts still go out side by side
        fit = max(1, REQUEST_BYTES // max(map(len, texts)))
        size = min(self.options.rows, fit, share)
        return [(list(texts[start : start + size]), None) for start in range(0, len(texts), size)]

    def _completions(self, choices: Sequence[Choice], read: int, limit: int) -> Completions:
        """The server's answers as every decoder gives them, and on the account."""
        end = int(self.end_ids[0])
        ends = set(self.end_ids.tolist())
        rows, nats = [], []
        for choice in choices:
            ids = choice.ids
            if choice.stopped and not (ids and ids[-1] in ends):  # some servers keep the end token to themselves
                ids = [*ids, end if choice.stop_id is None else choice.stop_id]
            rows.append(ids[:limit])
            nats.append(choice.log_probs if choice.log_probs and len(choice.log_probs) == len(rows[-1]) else None)
        length = max(1, *map(len, rows))
        ids_NL = torch.tensor([row + [end] * (length - len(row)) for row in rows], device=self.device)
        mask_NL = torch.tensor([[1.0] * len(row) + [0.0] * (length - len(row)) for row in rows], device=self.device)
        ended_N = (torch.isin(ids_NL, self.end_ids) & mask_NL.bool()).any(1)
        log_prob_NL = None
        if all(row is not None for row in nats):
            padded = [row + [0.0] * (length - len(row)) for row in nats if row is not None]
            log_prob_NL = torch.tensor(padded, device=self.device)
        written = sum(map(len, rows))
        self.usage.prefilled += read  # a server reads every chain's whole prompt
        self.usage.decoded += written - len(rows)
        self.usage.logits += written
        return Completions(ids_NL, mask_NL, self.texts(ids_NL, mask_NL), ended_N, log_prob_NL=log_prob_NL)

    # ---- what a server does not do ---------------------------------------------------------------------------------

    @property
    def kv_sizes(self) -> NoReturn:
        """Not to be had: keys and values are on the server."""
        self._refuse("has no keys and values to change: use the space input or vocab")

    def grow(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not to be had: hidden states are on the server."""
        self._refuse("cannot change hidden states: use the space input or vocab")

    def rotate(self, *args: Any) -> NoReturn:
        """Not to be had: keys are on the server."""
        self._refuse("has no keys to rotate: use the space input or vocab")

    def first_values(self, *args: Any) -> NoReturn:
        """Not to be had: values are on the server."""
        self._refuse("has no values to show: use the space input or vocab")

    def log_prob(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not to be had: vLLM scores no given completion behind prompt embeddings, and nobody sends gradients."""
        self._refuse("cannot score given completions, nor differentiate: use the estimator score, without replay")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(f"decoder 'remote' {what}")
