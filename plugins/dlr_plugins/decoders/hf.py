"""The frozen main model on Transformers: any causal language model with a plain key/value cache."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dlr_core.common_prefix import common_prefix
from dlr_core.cost import Usage
from dlr_core.errors import ModelError
from dlr_core.heap import keep_free
from dlr_core.protocols import Steer
from dlr_core.records import Beginning, Completions, PromptCache
from dlr_plugins.decoders.cache_name import CACHE
from dlr_plugins.decoders.copied_prompts import CopiedStepper, copied_log_prob, feed_after
from dlr_plugins.decoders.distinct import write_distinct
from dlr_plugins.decoders.drafting import Choice, Draft, Stepper, write
from dlr_plugins.decoders.drawing import Generators, check_generators
from dlr_plugins.decoders.first_layer import Captured, FirstLayer
from dlr_plugins.decoders.flops import token_flops
from dlr_plugins.decoders.gated import spare
from dlr_plugins.decoders.loading import load
from dlr_plugins.decoders.outline import Outline
from dlr_plugins.decoders.packed_linear import pack
from dlr_plugins.decoders.prefilling import layers_of, prefilled
from dlr_plugins.decoders.products import Products, check_products, packing_here
from dlr_plugins.decoders.prompt_limits import check_room, positions_of, usable
from dlr_plugins.decoders.quantised import Weights, check_weights, quantise
from dlr_plugins.decoders.replaceable import replace_attention
from dlr_plugins.decoders.shared_stepper import SharedStepper
from dlr_plugins.decoders.spreading import DeviceMap, Memory, gather, is_spread, placement, real_weight
from dlr_plugins.decoders.steering import steered
from dlr_plugins.decoders.teacher_forced import TeacherForced
from dlr_plugins.decoders.text import PromptText

BEGINNINGS = 8
"""Beginnings of prompts that are kept (one wording of a task has one, most of the time)."""
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


class HFDecoder(PromptText):
    """A frozen causal language model: prefill once, inject, decode once."""

    reports_entropy = True
    copies_prompts = False
    """Whether chains of a question have a copy of its prompt each while they are decoded."""

    class Options(BaseModel):
        """Settings of ``hf``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str = Field("smollm2-135m", description="smollm2-135m, a folder, a .gguf file, or a hub id.")
        device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps …")
        dtype: str = Field("auto", description="auto (float32 on CPU, bfloat16 elsewhere), float32, bfloat16, float16.")
        weights: Weights = Field(
            "full",
            description="full, or those of its linear layers rounded to float16 (faster on an x86 CPU), or in int8 or "
            "int4 (smaller, and slower).",
        )
        packed: bool = Field(
            True,
            description="On a CPU: multiply from weights in a library's order, held instead of the model's own; the "
            "output head has both.",
        )
        products: Products = Field(
            "float32",
            description="What packed copies are in: bfloat16 is far faster on a CPU with AMX, and rounds; it is left "
            "out where a CPU has no such products, and on a GPU.",
        )
        scored_at_once: int = Field(
            0,
            ge=0,
            description="Completions' positions scored in one pass, at most: fewer take less memory and more time; 0: "
            "256 on a CPU, shared among its threads, 8192 elsewhere.",
        )
        device_map: DeviceMap = Field(
            "none",
            description="none (all on decoder.device), or how Accelerate spreads it over all devices: auto, balanced, "
            "balanced_low_0, sequential.",
        )
        max_memory: Memory = Field({}, description="Most it takes of each: 0=20GiB,cpu=60GiB; as measured if empty.")
        offload_folder: str = Field("", description="Folder for what fits no device; nothing is offloaded there if ''.")

    def __init__(self, options: Options) -> None:
        check_weights(options.weights, spread=options.device_map != "none")
        check_products(options.products, packed=options.packed, weights=options.weights)
        placed = placement(options.device, options.device_map, options.max_memory, options.offload_folder)
        self.model, self.tokenizer = load(options.model, options.device, options.dtype, placed)
        self.usage = Usage()
        self._beginnings: dict[tuple[int, ...], Beginning] = {}
        with usable(options.model):
            self.model.eval().requires_grad_(False)
            self.flops_per_token = token_flops(self.model)
            quantise(self.model, options.weights)
            config = self.model.config.get_text_config()
            self.device: torch.device = gather(self.model)
            self.spread = is_spread(self.model)
            if not self.spread:
                spare(self.model)
            self.dtype: torch.dtype = self.model.dtype
            self.hidden_size: int = config.hidden_size
            self.positions = positions_of(config)
            self.body = self.model.base_model
            self.end_ids = self._end_ids()
            self.kv_sizes, self._template, probe = self._probe()
            self.shares_prompts = self._can_share(probe, options.scored_at_once)
            head = self.model.get_output_embeddings()
            packing = packing_here(options.products, options.weights, self.device, self.dtype)
            self.packed = pack(self.model, self._one_token, packing, head) if options.packed else []
        keep_free()

    @classmethod
    def outline(cls, options: Options) -> Outline:
        """The model without its weights; ModelError if its files are not here, ConfigError for settings at odds."""
        check_products(options.products, packed=options.packed, weights=options.weights)
        spread = options.device_map != "none"
        return Outline(
            options.model, options.device, options.dtype, copies_prompts=cls.copies_prompts, spread=spread,
            weights=options.weights, packed=options.packed, products=options.products,
            scored_at_once=options.scored_at_once,
        )  # fmt: skip

    def _one_token(self) -> None:
        self.body(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device))

    def _end_ids(self) -> Tensor:
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise ModelError("the main model declares no end-of-sequence token")
        return torch.tensor(ends if isinstance(ends, list) else [ends], device=self.device)

    def _probe(self) -> tuple[list[tuple[int, int]], tuple[int, ...], PromptCache]:
        """Key/value sizes of every layer, the tokens with which every prompt of the chat template begins, a prompt."""
        first, second = self.prompt_ids("a"), self.prompt_ids("b")
        same = common_prefix([first, second])
        with torch.no_grad():
            out = self.body(input_ids=torch.tensor([first], device=self.device), use_cache=True)
        layers = getattr(getattr(out, CACHE), "layers", [])
        if not layers or any(type(layer).__name__ != "DynamicLayer" for layer in layers):
            kinds = sorted({type(layer).__name__ for layer in layers}) or ["none"]
            raise ModelError(f"expected a main model with a plain key/value cache, got layers {', '.join(kinds)}")
        sizes = [(layer.keys.shape[1], layer.keys.shape[3]) for layer in layers]
        states, mask_NS = out.last_hidden_state, torch.ones(1, len(first), dtype=torch.long, device=self.device)
        return (
            sizes,
            tuple(first[:same]),
            PromptCache(*layers_of(getattr(out, CACHE)), mask_NS, states, states[:, :0], 0),
        )

    def _can_share(self, prompt: PromptCache, at_once: int) -> bool:
        """Whether chains can share prompts on this model; where they cannot, the reason is logged."""
        end_1 = self.end_ids[:1]
        reason, plain_head = replace_attention(self.model, prompt, torch.cat([end_1, torch.zeros_like(end_1)]))
        if reason is not None:
            name = type(self.model).__name__
            logging.getLogger(__name__).warning("%s: every chain copies its prompt: %s", name, reason)
        self._teacher = TeacherForced(self.model, self.flops_per_token.body, plain_head, self.spread, at_once)
        return reason is None

    def embedding_table(self) -> Tensor:
        """The (V, H) input embedding table."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    # ---- states --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prefill(
        self, questions: Sequence[str], anchor: Sequence[int], pending: Sequence[int], latents: int
    ) -> PromptCache:
        """Run each question with its anchor tokens once, and what all of them begin with once for all.

        With nothing pending and no latents the last prompt token is left to be fed, so that decoding has a token to
        start from; a space with nothing pending feeds its latents itself.
        """
        rows = [self.prompt_ids(question) + list(anchor) + list(pending) for question in questions]
        left = len(pending) or (0 if latents else 1)
        shared = self._shared(rows, left)
        bodies = [row[len(shared) : len(row) - left] for row in rows]
        cache, computed = prefilled(self.body, bodies, self._beginning(shared), int(self.end_ids[0]), self.device)
        # what all begin with counts, kept or not: a resumed run must count what an unbroken one does
        self.usage.prefilled += computed + len(shared)
        tails = torch.tensor([row[len(row) - left :] for row in rows], dtype=torch.long, device=self.device)
        pending_NPH = self.model.get_input_embeddings()(tails)
        return replace(cache, pending_NPH=pending_NPH, num_latents=latents)

    def _shared(self, rows: Sequence[Sequence[int]], left: int) -> tuple[int, ...]:
        """What all prompts begin with: a function of the prompts alone, so that running them again gives equal bits."""
        distinct = {tuple(row) for row in rows}
        same = common_prefix(list(distinct)) if len(distinct) > 1 else len(self._template)
        same = min(same, min(map(len, rows)) - left - 1)
        return tuple(rows[0][:same]) if same >= len(self._template) else ()

    def _beginning(self, ids: tuple[int, ...]) -> Beginning | None:
        """Keys and values of every layer and final states of a prompt's beginning, kept for the next prompts."""
        if not ids:
            return None
        if ids not in self._beginnings:
            out = self.body(input_ids=torch.tensor([ids], device=self.device), use_cache=True)
            self._beginnings[ids] = Beginning(ids, *layers_of(getattr(out, CACHE)), out.last_hidden_state)
            while len(self._beginnings) > BEGINNINGS:
                self._beginnings.pop(next(iter(self._beginnings)))
        return self._beginnings[ids]

    def extend(self, cache: PromptCache, embeds_NPH: Tensor) -> Tensor:
        """Final-norm states (N, P, H) of embeddings fed after a cache, which is left as it was."""
        return self.grow(cache, embeds_NPH).states_NSH[:, -embeds_NPH.shape[1] :]

    def grow(self, cache: PromptCache, embeds_NPH: Tensor, steer: Steer | None = None) -> PromptCache:
        """The cache with embeddings fed after it; ``steer`` may change what enters each layer at their positions.

        Differentiable in the embeddings and in what ``steer`` adds. Nothing is pending afterwards, and no position is
        latent: the caller says so.
        """
        with steered(self._layer_modules, self.device, steer):
            out = feed_after(self.body, cache, embeds_NPH)
        keys, values = layers_of(getattr(out, CACHE))
        states: Tensor = out.last_hidden_state
        count = states.shape[0] * states.shape[1]
        self.usage.prefilled += count
        self.usage.backpropagated += count * states.requires_grad
        mask_NS = torch.cat([cache.mask_NS, cache.mask_NS.new_ones(states.shape[:2])], 1)
        states_NSH = torch.cat([cache.states_NSH, states], 1)
        return PromptCache(keys, values, mask_NS, states_NSH, embeds_NPH[:, :0], 0)

    def _layer_modules(self) -> torch.nn.ModuleList:
        """The body's stack of layers: its one module list as long as the key/value cache.

        Raises:
            ModelError: there is none.
        """
        for module in self.body.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == len(self.kv_sizes):
                return module
        raise ModelError(f"no stack of {len(self.kv_sizes)} layers found on {type(self.body).__name__}")

    @torch.no_grad()
    def first_values(self, ids_M: Tensor) -> Tensor:
        """First-layer attention values (M, heads·width) of single tokens: what the token alone contributes."""
        capture = FirstLayer()
        try:
            self.body(input_ids=ids_M[:, None], **{CACHE: capture}, use_cache=True)
        except Captured as caught:
            return caught.values.flatten(1).to(self.device)
        raise ModelError(f"{type(self.body).__name__} never wrote to its key/value cache")

    def rotate(self, keys_NThd: Tensor, positions_NT: Tensor) -> Tensor:
        """Rotary position encoding of unrotated keys; unchanged for models without one."""
        rotary = getattr(self.body, "rotary_emb", None)
        if rotary is None:
            return keys_NThd
        cos, sin = (part.to(keys_NThd.device) for part in rotary(keys_NThd, positions_NT))
        turned = cos.shape[-1]  # partial rotary models turn only the first coordinates
        head, tail = keys_NThd[..., :turned], keys_NThd[..., turned:]
        first, second = head.chunk(2, -1)
        low, high = sin[:, :, None].chunk(2, -1)
        rotated = head * cos[:, :, None]  # written to by slices, as autograd lets no chunk be
        rotated[..., : turned // 2].addcmul_(second, -low)
        rotated[..., turned // 2 :].addcmul_(first, high)
        return torch.cat([rotated, tail], -1) if tail.shape[-1] else rotated

    def state_bound(self) -> Tensor:
        """√H·|w| (+|b|) per coordinate, read off the final norm by feeding it coordinate directions."""
        norm = next((getattr(self.body, name) for name in FINAL_NORMS if hasattr(self.body, name)), None)
        if norm is None:
            raise ModelError(f"no final norm found on {type(self.body).__name__}; looked for {', '.join(FINAL_NORMS)}")
        with torch.no_grad():
            zero = torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)
            shift = norm(zero)[0].float().abs()
            axes = torch.eye(self.hidden_size, device=self.device, dtype=self.dtype) * 1e3
            scale = (norm(axes).float() - norm(zero).float()).abs().diagonal()
        bound: Tensor = (scale * 1.01 + shift + 1e-3).cpu()
        return bound

    # ---- completions ---------------------------------------------------------------------------------------------

    def check_completable(
        self, cache: PromptCache, max_new_tokens: int, temperature: float, generators: Generators | None
    ) -> None:
        """Refuse what cannot be completed: too few generators, or positions (ConfigError)."""
        check_generators(temperature, generators, cache.rows)
        check_room(cache.mask_NS, cache.pending_NPH.shape[1] + max_new_tokens - 1, self.positions)

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
        """Complete every row, dropping finished ones from the batch; greedy at temperature 0.

        ``entropy``: also report how undecided every choice was, which costs two more passes over the vocabulary.
        """
        self.check_completable(cache, max_new_tokens, temperature, generators)
        cache, stepper = self._stepped(cache, max_new_tokens)
        draft = Draft.blank(cache.rows, max_new_tokens, int(self.end_ids[0]), self.device)
        embed, choice = self.model.get_input_embeddings(), Choice(temperature, generators, entropy)
        self._count(write(draft, self._rows(cache), stepper, cache.pending_NPH, choice, embed, self.end_ids))
        return self._written(draft, entropy=entropy)

    @torch.no_grad()
    def decode_distinct(
        self,
        cache: PromptCache,
        counts: Sequence[int],
        max_new_tokens: int,
        generators: Sequence[np.random.Generator],
        openings: Sequence[Sequence[int]] | None = None,
    ) -> Completions:
        """``counts[n]`` different completions of row n, side by side, sampled without replacement at temperature 1.

        ``openings``: tokens that each row's completions begin with, and which are part of them.
        """
        self.check_completable(cache, max_new_tokens, 1.0, generators)
        cache, stepper = self._stepped(cache, max_new_tokens)
        draft = Draft.blank(sum(counts), max_new_tokens, int(self.end_ids[0]), self.device)
        embed, begun = self.model.get_input_embeddings(), openings or [()] * cache.rows
        self._count(write_distinct(draft, stepper, cache.pending_NPH, counts, begun, generators, embed, self.end_ids))
        return self._written(draft)

    def _stepped(self, cache: PromptCache, limit: int) -> tuple[PromptCache, Stepper]:
        """A cache as it is decoded, and what feeds its rows token by token."""
        cache = replace(cache, states_NSH=cache.states_NSH[:, :0])
        if self.shares_prompts and not cache.trunk:  # who made it may have changed what it begins with
            cache = cache.on_trunk()
        stepper: Any = SharedStepper if self.shares_prompts else CopiedStepper
        return cache, stepper(self.model, cache, cache.pending_NPH.shape[1] + limit)

    def _count(self, spent: tuple[int, int]) -> None:
        """Add up positions fed, and of how many the logits were read."""
        self.usage.decoded += spent[0]
        self.usage.logits += spent[1]

    def _written(self, draft: Draft, *, entropy: bool = False) -> Completions:
        """A finished draft."""
        ids_NL, mask_NL, entropy_N = draft.ids_NL, draft.mask_NL, draft.entropy_N
        length = int(mask_NL.sum(1).max())
        ids_NL, mask_NL = ids_NL[:, :length], mask_NL[:, :length]
        ended_N = (torch.isin(ids_NL, self.end_ids) & mask_NL.bool()).any(1)
        texts = self.texts(ids_NL, mask_NL)
        return Completions(ids_NL, mask_NL, texts, ended_N, entropy_N / mask_NL.sum(1) if entropy else None)

    def log_prob(self, cache: PromptCache, ids_NL: Tensor, mask_NL: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probability (N,) in nats of completions, teacher-forced; differentiable in what was injected."""
        if self.shares_prompts:
            return self._teacher.log_prob(cache, ids_NL, mask_NL, temperature, self.usage)
        return copied_log_prob(self.model, cache, ids_NL, mask_NL, temperature, self.usage)

    def _rows(self, cache: PromptCache) -> Tensor:
        return torch.arange(cache.rows, device=cache.mask_NS.device)

    def logits(self, states_NPH: Tensor) -> Tensor:
        """Logits (N, P, V) of the tokens that follow final-norm states; differentiable in the states.

        What a model does to its logits after the head (a cap, a scale) is left out.
        """
        logits: Tensor = self.model.get_output_embeddings()(states_NPH).to(states_NPH.device)
        self.usage.logits += states_NPH.shape[0] * states_NPH.shape[1] * (1 + logits.requires_grad)
        return logits.float()

    def fingerprint(self) -> str:
        """SHA-256 over the name, dtype, shape and bytes of every parameter and buffer."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict(keep_vars=False).items()):
            flat = real_weight(self.model, name, tensor).detach().cpu().contiguous()
            digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return digest.hexdigest()
