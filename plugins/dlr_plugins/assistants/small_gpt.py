"""A small causal transformer that reads the question's hidden states and writes latents one after another."""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dlr_core.density import Policy
from dlr_core.protocols import ChainBatch
from dlr_plugins.assistants.block import Block, Past, padding_bias
from dlr_plugins.assistants.options import PolicyOptions, Spread
from dlr_plugins.assistants.reader import StateReader, from_end

POSITIONS = 512
STATIC_GAIN = 5.0
"""Adam moves a bias by one learning rate a step, but a weighted sum of features by many: this evens them out."""


class SmallGPT(nn.Module):
    """A small GPT over the frozen model's hidden states; a latent is drawn given the question and those before it."""

    class Options(PolicyOptions):
        """Settings of ``small-gpt``."""

        width: int = Field(192, gt=0, description="Model width; a multiple of the number of heads.")
        layers: int = Field(2, gt=0, description="Transformer blocks.")
        heads: int = Field(4, gt=0, description="Attention heads.")

        @model_validator(mode="after")
        def _divisible(self) -> "SmallGPT.Options":
            if self.width % self.heads:
                raise ValueError(f"width must be a multiple of heads={self.heads}, got {self.width}")
            return self

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        width = options.width
        self.num_latents = num_latents
        self.spread = Spread(options, num_latents, latent_dim)
        self.reader = StateReader(hidden_size)
        self.read = nn.Linear(hidden_size, width)
        self.read_latent = nn.Linear(latent_dim, width)
        self.from_end = nn.Embedding(POSITIONS, width)
        self.slot_TW = nn.Parameter(torch.randn(num_latents, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, latent_dim)
        self.static_TD = nn.Parameter(torch.zeros(num_latents, latent_dim))
        nn.init.normal_(self.from_end.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=options.initial_mean / width**0.5)
        nn.init.zeros_(self.head.bias)

    def calibrate(self, states_BSH: Tensor, mask_BS: Tensor) -> None:
        """Learn what all questions have in common, from training questions' states, before training begins."""
        self.reader.calibrate(states_BSH, mask_BS)

    def _question(self, states_BSH: Tensor, mask_BS: Tensor, group: int) -> tuple[Tensor, list[Past], Tensor]:
        """The question's gist (N, 1, width), its keys and values in every block, and the bias that hides the rest."""
        states_BSH, telling_BS = self.reader(states_BSH, mask_BS)
        hidden = self.read(states_BSH) + self.from_end(from_end(mask_BS, POSITIONS))
        gist = hidden[:, -1:].repeat_interleave(group, 0)
        bias = padding_bias(telling_BS, hidden.dtype)
        pasts: list[Past] = []
        for block in self.blocks:
            hidden, past = block(hidden, None, bias)
            pasts.append((past[0].repeat_interleave(group, 0), past[1].repeat_interleave(group, 0)))
        return gist, pasts, bias.repeat_interleave(group, 0)

    def _write(self, inputs: Tensor, first: int, pasts: list[Past], bias: Tensor) -> tuple[Tensor, list[Past]]:
        """Means of the latents from ``first`` on, given their input embeddings."""
        hidden, grown = inputs, []
        for block, past in zip(self.blocks, pasts, strict=True):
            hidden, new = block(hidden, past, bias)
            grown.append(new)
        last = first + inputs.shape[1]
        return self.head(self.norm(hidden)) + STATIC_GAIN * self.static_TD[first:last], grown

    def sample(self, states_BSH: Tensor, mask_BS: Tensor, noise_NTD: Tensor) -> ChainBatch:
        """Write N = B·G chains, one latent after another; gradients flow through every earlier latent."""
        rows = noise_NTD.shape[0]
        gist, pasts, bias = self._question(states_BSH, mask_BS, rows // states_BSH.shape[0])
        log_std_TD = self.spread.policy(self.static_TD).log_std
        means, pres = [], []
        embedded = gist + self.slot_TW[:1]
        for t in range(self.num_latents):
            mean, pasts = self._write(embedded, t, pasts, bias)
            pre = mean[:, 0] + log_std_TD[t].exp() * noise_NTD[:, t]
            means.append(mean[:, 0])
            pres.append(pre)
            if t + 1 < self.num_latents:
                embedded = gist + (self.read_latent(pre.tanh()) + self.slot_TW[t + 1])[:, None]
        return ChainBatch(noise_NTD, self.spread.policy(torch.stack(means, 1)), torch.stack(pres, 1))

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> Policy:
        """The policy of every latent given the earlier ones, in one teacher-forced pass."""
        gist, pasts, bias = self._question(states_BSH, mask_BS, pre_NTD.shape[0] // states_BSH.shape[0])
        before = self.read_latent(pre_NTD[:, :-1].tanh())
        first = before.new_zeros(len(pre_NTD), 1, before.shape[2])
        mean_NTD, _ = self._write(gist + torch.cat([first, before], 1) + self.slot_TW, 0, pasts, bias)
        return self.spread.policy(mean_NTD)
