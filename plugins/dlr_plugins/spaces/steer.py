"""Latents as steering directions: each is added to the residual stream at its position, in a band of layers.

Steering vectors in the residual stream, trained by reinforcement learning with everything else frozen, come close to
full fine-tuning on reasoning tasks (Sinii et al. 2025, arXiv 2509.06608). There one vector per layer is learned for all
questions and added at every position; here the assistant writes the vectors, per question and latent position, and
what is said afterwards is steered only through attention to those positions.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dlr_core.protocols import Decoder
from dlr_core.records import PromptCache
from dlr_plugins.spaces.anchor import SpaceOptions, anchor_tokens
from dlr_plugins.spaces.charts import principal_directions, random_directions


class SteerSpace(nn.Module):
    """h_l += radius · s_l · a_t W_l at latent position t, for what enters every layer l of a band.

    s_l is the standard deviation of the hidden states that enter layer l at the latent positions of training questions,
    and W a (D, layers·H) chart, so that |a| ≤ 1 bounds the direction. The latent positions are run again for every
    chain: T token-forwards, and the trigger token follows.
    """

    scale: Tensor

    class Options(SpaceOptions):
        """Settings of ``steer``."""

        radius: float = Field(0.5, gt=0, description="Scale of a direction, in standard deviations of hidden states.")
        first: float = Field(0.25, ge=0, lt=1, description="Where the band begins, as a share of the model's depth.")
        last: float = Field(0.75, gt=0, le=1, description="Where the band ends, as a share of the model's depth.")

        @model_validator(mode="after")
        def _ordered(self) -> "SteerSpace.Options":
            if self.first >= self.last:
                raise ValueError(f"first must be below last={self.last}, got {self.first}")
            return self

    def __init__(self, options: Options, decoder: Decoder) -> None:
        super().__init__()
        self.options, self.decoder = options, [decoder]  # in a list: the frozen model is no submodule
        self.num_latents, self.latent_dim = options.num_latents, options.latent_dim
        self.anchor_ids, self.pending_ids, self.latent_ids = anchor_tokens(decoder, options, trigger=1)
        depth = len(decoder.kv_sizes)
        begin = int(options.first * depth)
        self.band = range(begin, max(begin + 1, round(options.last * depth)))
        total = len(self.band) * decoder.hidden_size
        self.chart_DW = nn.Parameter(random_directions(options.latent_dim, total, options.seed).to(decoder.device))
        self.chart_DW.requires_grad_(options.chart == "joint")
        self.register_buffer("scale", torch.ones(len(self.band), device=decoder.device))

    @torch.no_grad()
    def calibrate(self, questions: Sequence[str]) -> None:
        """Measure s_l on training questions; fit the chart where it is ``principal``."""
        decoder = self.decoder[0]
        cache = decoder.prefill(questions, self.anchor_ids, self.pending_ids, self.num_latents)
        seen: dict[int, Tensor] = {}

        def watch(layer: int, hidden_NPH: Tensor) -> Tensor:
            seen[layer] = hidden_NPH.float()
            return hidden_NPH

        decoder.grow(self._before(cache), self._embeds(cache.rows, self.num_latents), watch)
        blocks = [seen[layer].flatten(0, 1) for layer in self.band]
        self.scale.copy_(torch.stack([block.std(0).square().mean().sqrt() for block in blocks]))
        if self.options.chart == "principal":
            # One repeated anchor token does not vary where it enters the first layer.
            unit_MW = torch.cat([b / s.clamp(min=1e-6) for b, s in zip(blocks, self.scale, strict=True)], 1)
            self.chart_DW.copy_(principal_directions(unit_MW, self.latent_dim, self.options.seed))

    def _before(self, cache: PromptCache) -> PromptCache:
        """The prompt without its latent positions."""
        return cache.crop(cache.mask_NS.shape[1] - self.num_latents)

    def _embeds(self, rows: int, count: int) -> Tensor:
        """Embeddings (rows, count, H) of the first ``count`` latent tokens."""
        table = self.decoder[0].embedding_table()
        embeds: Tensor = table[torch.tensor(self.latent_ids[:count], device=table.device)].expand(rows, -1, -1)
        return embeds

    def _steered(self, cache: PromptCache, actions_NtD: Tensor) -> PromptCache:
        """The prompt with its first t latent positions run under their directions."""
        moved = self.options.radius * (actions_NtD.float() @ self.chart_DW)
        parts = moved.unflatten(-1, (len(self.band), -1)) * self.scale[:, None]

        def steer(layer: int, hidden_NPH: Tensor) -> Tensor:
            if layer not in self.band:
                return hidden_NPH
            direction: Tensor = parts[..., layer - self.band.start, :].to(hidden_NPH.dtype)
            return hidden_NPH + direction

        embeds = self._embeds(cache.rows, actions_NtD.shape[1])
        return self.decoder[0].grow(self._before(cache), embeds, steer)

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Run the latent positions again, steered; the trigger token is left to be fed."""
        grown = self._steered(cache, actions_NTD)
        return replace(grown, pending_NPH=cache.pending_NPH, num_latents=self.num_latents)

    def observe(self, cache: PromptCache, actions_NtD: Tensor) -> Tensor:
        """State of anchor token t, run without a direction after the t steered positions before it."""
        done = actions_NtD.shape[1]
        if done == 0:
            return cache.states_NSH[:, cache.mask_NS.shape[1] - self.num_latents]
        probe = self._embeds(cache.rows, done + 1)[:, done:]
        return self.decoder[0].extend(self._steered(cache, actions_NtD), probe)[:, -1]

    @torch.no_grad()
    def nearest_tokens(self, actions_TD: Tensor, count: int = 3) -> list[list[str]]:
        """Tokens whose embeddings point the way that the latent pushes the residual stream, all layers together."""
        table = self.decoder[0].embedding_table().float()
        table = nn.functional.normalize(table - table.mean(0), dim=-1)
        pushed = (actions_TD.float() @ self.chart_DW).unflatten(-1, (len(self.band), -1)) * self.scale[:, None]
        cosine = nn.functional.normalize(pushed.sum(-2), dim=-1) @ table.T
        return [[self.decoder[0].token(int(i)) for i in row] for row in cosine.topk(count, -1).indices]

    def trainable(self) -> list[nn.Parameter]:
        """The chart, where it is joint."""
        return [self.chart_DW] if self.chart_DW.requires_grad else []
