"""Latents as residuals on the keys and values of the latent positions, in every layer of the frozen model."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from dlr_core.protocols import Decoder
from dlr_core.records import PromptCache
from dlr_plugins.spaces.anchor import SpaceOptions, anchor_tokens
from dlr_plugins.spaces.charts import principal_directions, random_directions


class KVSpace(nn.Module):
    """(k, v)_l += radius · s_l ⊙ (a_t W_l) in every layer l, Δk rotated by its position.

    One-step chains cost no forward pass for the latents.

    Δk is defined before the rotary embedding, so a latent means the same whatever the question's length. s_l is the
    standard deviation of layer l's keys and of its values over training questions, W a (D, width) chart.
    """

    scale: Tensor
    block_W: Tensor
    shares_prompts = True
    """Whether ``inject`` takes prompts that share a trunk (:meth:`dlr_core.records.PromptCache.share`)."""

    class Options(SpaceOptions):
        """Settings of ``kv``."""

        latent_dim: int = Field(64, ge=1, le=4096, description="D, width of a latent and rank of the chart.")

    def __init__(self, options: Options, decoder: Decoder) -> None:
        super().__init__()
        self.options, self.decoder = options, [decoder]  # in a list: the frozen model is no submodule
        self.num_latents, self.latent_dim = options.num_latents, options.latent_dim
        self.anchor_ids, self.pending_ids, self.latent_ids = anchor_tokens(decoder, options, trigger=1)
        self.sizes = [size for size in decoder.kv_sizes for _ in range(2)]
        self.widths = [heads * width for heads, width in self.sizes]
        total = sum(self.widths)
        self.chart_DW = nn.Parameter(random_directions(options.latent_dim, total, options.seed).to(decoder.device))
        self.chart_DW.requires_grad_(options.chart == "joint")
        self.register_buffer("scale", torch.ones(len(self.widths), device=decoder.device))
        block_W = torch.arange(len(self.widths)).repeat_interleave(torch.tensor(self.widths))
        self.register_buffer("block_W", block_W.to(decoder.device), persistent=False)  # whose scale a coordinate has

    def calibrate(self, questions: Sequence[str]) -> None:
        """Measure s_l on training questions; fit the chart where it is ``principal``."""
        features_MW = self._features(questions)
        blocks = features_MW.split(self.widths, 1)
        self.scale.copy_(torch.stack([block.std(0).square().mean().sqrt() for block in blocks]))
        if self.options.chart == "principal":
            unit = torch.cat([b / s for b, s in zip(blocks, self.scale, strict=True)], 1)
            self.chart_DW.data.copy_(principal_directions(unit, self.latent_dim, self.options.seed))

    def _features(self, questions: Sequence[str]) -> Tensor:
        """Unrotated keys and values (M, W) of every question token."""
        decoder = self.decoder[0]
        cache = decoder.prefill(questions, [], [], 0)
        real_NS = cache.mask_NS.bool()
        rows = []
        for key, value in zip(cache.keys, cache.values, strict=True):
            key, value = key.to(decoder.device), value.to(decoder.device)
            plain = decoder.rotate(key.transpose(1, 2), -cache.positions_NS)
            rows += [plain[real_NS].flatten(1), value.transpose(1, 2)[real_NS].flatten(1)]
        return torch.cat(rows, 1).float()

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Add the residuals to the last T cached positions."""
        return self._add(cache, actions_NTD, cache.mask_NS.shape[1] - self.num_latents)

    def _add(self, cache: PromptCache, actions_NtD: Tensor, start: int) -> PromptCache:
        if cache.trunk is not None and start < cache.trunk.length:
            cache = cache.whole()
        begin = start - (cache.trunk.length if cache.trunk else 0)
        scaled_DW = self.chart_DW * (self.options.radius * self.scale)[self.block_W]  # smaller than all residuals are
        blocks, actions, dtype = scaled_DW.split(self.widths, 1), actions_NtD.float(), cache.keys[0].dtype
        turned = self._rotated(actions, blocks[::2], cache.positions_NS[:, start : start + actions.shape[1]], dtype)
        values = (actions @ torch.cat(blocks[1::2], 1)).to(dtype).split(self.widths[1::2], -1)
        parts = [value.unflatten(-1, size) for value, size in zip(values, self.sizes[1::2], strict=True)]
        return replace(
            cache,
            keys=tuple(_added(key, dk, begin) for key, dk in zip(cache.keys, turned, strict=True)),
            values=tuple(_added(value, dv, begin) for value, dv in zip(cache.values, parts, strict=True)),
        )

    def _rotated(
        self, actions_NtD: Tensor, blocks: Sequence[Tensor], positions_Nt: Tensor, dtype: torch.dtype
    ) -> list[Tensor]:
        """Residuals (N, t, heads, width) of every layer's keys, rotated; of one width together, as they turn alike."""
        sizes, turned = self.sizes[::2], list(blocks)
        for width in {width for _, width in sizes}:
            layers = [layer for layer, size in enumerate(sizes) if size[1] == width]
            residual = (actions_NtD @ torch.cat([blocks[layer] for layer in layers], 1)).to(dtype)
            together = self.decoder[0].rotate(residual.unflatten(-1, (-1, width)), positions_Nt)
            for layer, part in zip(layers, together.split([sizes[layer][0] for layer in layers], 2), strict=True):
                turned[layer] = part
        return turned

    def observe(self, cache: PromptCache, actions_NtD: Tensor) -> Tensor:
        """State of anchor token t as a probe over the question and the residual-carrying positions before it."""
        start = cache.mask_NS.shape[1] - self.num_latents
        done = actions_NtD.shape[1]
        if done == 0:
            return cache.states_NSH[:, start]
        carried = self._add(cache, actions_NtD, start)
        before = carried.crop(start + done)
        token = self.latent_ids[done]
        embeds = self.decoder[0].embedding_table()[token].expand(cache.rows, 1, -1)
        return self.decoder[0].extend(before, embeds)[:, -1]

    @torch.no_grad()
    def nearest_tokens(self, actions_TD: Tensor, count: int = 3) -> list[list[str]]:
        """Tokens whose first-layer values point the way the latent's residual does.

        The first layer's values are a function of the token alone, so every vocabulary entry has one to compare with.
        """
        decoder = self.decoder[0]
        heads, size = decoder.kv_sizes[0]
        residual = (actions_TD.float() @ self.chart_DW)[:, self.widths[0] : self.widths[0] + heads * size]
        table = self._first_values()
        cosine = torch.nn.functional.normalize(residual, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        return [[decoder.token(int(i)) for i in row] for row in cosine.topk(count, -1).indices]

    def _first_values(self) -> Tensor:
        if not hasattr(self, "_value_table"):
            decoder = self.decoder[0]
            ids = torch.arange(len(decoder.embedding_table()), device=decoder.device)
            values = [decoder.first_values(chunk) for chunk in ids.split(8192)]
            table = torch.cat(values).float()
            self._value_table = [table - table.mean(0)]
        return self._value_table[0]

    def trainable(self) -> list[nn.Parameter]:
        """The chart, where it is joint."""
        return [self.chart_DW] if self.chart_DW.requires_grad else []


def _added(cached_NhSd: Tensor, residual_Nthd: Tensor, begin: int) -> Tensor:
    """Cached keys or values with residuals on the t positions from ``begin`` on."""
    residual = residual_Nthd.transpose(1, 2).to(cached_NhSd.device)
    end = begin + residual.shape[2]
    if (begin, end) == (0, cached_NhSd.shape[2]):
        return cached_NhSd + residual
    return torch.cat([cached_NhSd[:, :, :begin], cached_NhSd[:, :, begin:end] + residual, cached_NhSd[:, :, end:]], 2)
