"""Latents as residuals on the input embeddings of the latent positions."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from dlr_core.protocols import Decoder
from dlr_core.records import PromptCache
from dlr_plugins.spaces.anchor import SpaceOptions, anchor_tokens
from dlr_plugins.spaces.charts import principal_directions, random_directions


class InputSpace(nn.Module):
    """e_t += radius · (a_t ⊙ s) Bᵀ: B spans the top-D principal directions of the token-embedding table."""

    shares_prompts = True
    """Whether ``inject`` takes prompts that share a trunk (:meth:`dlr_core.records.PromptCache.share`)."""
    embeddings_only = True

    class Options(SpaceOptions):
        """Settings of ``input``."""

        radius: float = Field(1.0, gt=0, description="Scale of the residual, in standard deviations of the embeddings.")

    def __init__(self, options: Options, decoder: Decoder) -> None:
        super().__init__()
        self.options, self.decoder = options, [decoder]  # in a list: the frozen model is no submodule
        self.num_latents, self.latent_dim = options.num_latents, options.latent_dim
        self.anchor_ids, self.pending_ids, self.latent_ids = anchor_tokens(decoder, options, trigger=0)
        table = decoder.embedding_table().float()
        self.spread = float(table.std(0).square().mean().sqrt())
        if options.chart == "random":
            chart = random_directions(options.latent_dim, table.shape[1], options.seed)
        else:
            every = max(1, len(table) // 8192)
            chart = principal_directions(table[::every], options.latent_dim, options.seed)
        self.chart_DH = nn.Parameter(chart.to(decoder.device), requires_grad=options.chart == "joint")

    def calibrate(self, questions: Sequence[str]) -> None:
        """Nothing here depends on questions: the chart comes from the embedding table."""

    def _embeds(self, actions_NtD: Tensor) -> Tensor:
        ids = torch.tensor(self.latent_ids[: actions_NtD.shape[1]], device=self.chart_DH.device)
        table = self.decoder[0].embedding_table()
        residual = self.options.radius * self.spread * (actions_NtD.float() @ self.chart_DH)
        return table[ids] + residual.to(table.dtype)

    def _question(self, cache: PromptCache) -> PromptCache:
        end = cache.mask_NS.shape[1] - self.num_latents
        return cache.crop(end)

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Drop the anchor's plain positions and leave its embeddings with residuals to be fed."""
        return replace(self._question(cache), pending_NPH=self._embeds(actions_NTD))

    def observe(self, cache: PromptCache, actions_NtD: Tensor) -> Tensor:
        """State of anchor token t, fed without a residual after the t latents before it."""
        done = actions_NtD.shape[1]
        if done == 0:
            return cache.states_NSH[:, cache.mask_NS.shape[1] - self.num_latents]
        probe = torch.zeros_like(actions_NtD[:, :1])
        embeds = self._embeds(torch.cat([actions_NtD, probe], 1))
        return self.decoder[0].extend(self._question(cache), embeds)[:, -1]

    @torch.no_grad()
    def nearest_tokens(self, actions_TD: Tensor, count: int = 3) -> list[list[str]]:
        """Tokens whose embeddings point the way the latent's residual does."""
        table = self.decoder[0].embedding_table().float()
        table = torch.nn.functional.normalize(table - table.mean(0), dim=-1)
        residual = torch.nn.functional.normalize(actions_TD.float() @ self.chart_DH, dim=-1)
        return [[self.decoder[0].token(int(i)) for i in row] for row in (residual @ table.T).topk(count, -1).indices]

    def trainable(self) -> list[nn.Parameter]:
        """The chart, where it is joint."""
        return [self.chart_DH] if self.chart_DH.requires_grad else []
