"""What spaces have in common whose latent positions are fed one after another, each with the last state in hand."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dlr_core.protocols import Decoder
from dlr_core.records import PromptCache
from dlr_plugins.spaces.anchor import SpaceOptions, anchor_tokens
from dlr_plugins.spaces.charts import principal_directions, random_directions


class HandBack(nn.Module):
    """At latent position t the frozen model is fed a function of its last state, of the anchor's token and of a_t.

    States are handed on from thought to thought, so a chain costs T passes of one position, and their gradients.
    """

    reserved = 0
    """Coordinates of a latent, the first ones, that the chart does not read."""

    def __init__(self, options: SpaceOptions, decoder: Decoder) -> None:
        super().__init__()
        self.options, self.decoder = options, [decoder]  # in a list: the frozen model is no submodule
        self.num_latents, self.latent_dim = options.num_latents, options.latent_dim
        self.anchor_ids, self.pending_ids, self.latent_ids = anchor_tokens(decoder, options, trigger=1)
        count, table = options.latent_dim - self.reserved, decoder.embedding_table().float()
        if options.chart == "principal":
            chart = principal_directions(table[:: max(1, len(table) // 8192)], count, options.seed)
        else:
            chart = random_directions(count, table.shape[1], options.seed)
        self.chart_DH = nn.Parameter(chart.to(decoder.device), requires_grad=options.chart == "joint")

    def calibrate(self, questions: Sequence[str]) -> None:
        """Fit what depends on the model's own states; nothing, unless a space says otherwise."""

    def fed(self, state_NH: Tensor, token_H: Tensor, action_ND: Tensor) -> Tensor:
        """The input embedding (N, H) at one latent position; the token's own where the latent is zero.

        Args:
            state_NH: final-norm state of the position before.
            token_H: embedding of the anchor's token at this position.
            action_ND: the latent, float32.
        """
        raise NotImplementedError

    def _tokens(self) -> Tensor:
        """Embeddings (T, H) of the tokens at the latent positions."""
        table = self.decoder[0].embedding_table()
        return table[torch.tensor(self.latent_ids, device=table.device)]

    def _think(self, cache: PromptCache, actions_NtD: Tensor) -> PromptCache:
        """The prompt with its first t latent positions thought instead of read."""
        done = cache.crop(cache.mask_NS.shape[1] - self.num_latents)
        for action_ND, token_H in zip(actions_NtD.float().unbind(1), self._tokens(), strict=False):
            embed_NH = self.fed(done.states_NSH[:, -1], token_H, action_ND)
            done = self.decoder[0].grow(done, embed_NH[:, None].to(token_H.dtype))
        return done

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Think at every latent position; the trigger token is left to be fed."""
        done = self._think(cache, actions_NTD)
        return replace(done, pending_NPH=cache.pending_NPH, num_latents=self.num_latents)

    def observe(self, cache: PromptCache, actions_NtD: Tensor) -> Tensor:
        """State of anchor token t, read as it is after the t thoughts before it."""
        done = actions_NtD.shape[1]
        if done == 0:
            return cache.states_NSH[:, cache.mask_NS.shape[1] - self.num_latents]
        probe = self._tokens()[done].expand(cache.rows, 1, -1)
        return self.decoder[0].extend(self._think(cache, actions_NtD), probe)[:, -1]

    @torch.no_grad()
    def nearest_tokens(self, actions_TD: Tensor, count: int = 3) -> list[list[str]]:
        """Tokens whose embeddings point the way that the chart takes the latent."""
        table = self.decoder[0].embedding_table().float()
        table = nn.functional.normalize(table - table.mean(0), dim=-1)
        pointed = nn.functional.normalize(actions_TD.float()[:, self.reserved :] @ self.chart_DH, dim=-1)
        return [[self.decoder[0].token(int(i)) for i in row] for row in (pointed @ table.T).topk(count, -1).indices]

    def trainable(self) -> list[nn.Parameter]:
        """The chart, where it is joint."""
        return [self.chart_DH] if self.chart_DH.requires_grad else []
