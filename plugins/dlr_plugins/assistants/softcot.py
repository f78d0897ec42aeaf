"""Soft thoughts: a language model's last T hidden states after the question, projected into latents.

SoftCoT (Xu et al. 2025, arXiv 2502.12134) lets a small frozen language model read the question and T placeholders; its
hidden states at the placeholders go through a trained linear projection into the main model, which stays frozen.
Here the small model reads the frozen main model's states of the question, as every assistant does, through one linear
map more, instead of text; with ``backbone`` it is pretrained and frozen as in the paper, else a small one is trained.
The projection ends in a Gaussian's means, since reinforcement learning needs a density; the paper is supervised.
"""

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from dlr_core.density import TanhGaussian
from dlr_plugins.assistants.at_once import AtOnce
from dlr_plugins.assistants.options import PolicyOptions, Spread
from dlr_plugins.assistants.reader import StateReader
from dlr_plugins.assistants.small_gpt import STATIC_GAIN
from dlr_plugins.decoders.loading import load


class SoftCoT(AtOnce):
    """A language model reads the question and T placeholders; its states there are projected into latents."""

    class Options(PolicyOptions):
        """Settings of ``softcot``."""

        backbone: str | None = Field(
            None,
            description="Pretrained model to take, frozen and left out of checkpoints: smollm2-135m, a folder, a .gguf "
            "file, or a hub id. None: a small Llama of the sizes below, trained with the run.",
        )
        width: int = Field(192, gt=0, description="Width of the small Llama; twice the heads must divide it.")
        layers: int = Field(2, gt=0, description="Its layers.")
        heads: int = Field(4, gt=0, description="Its attention heads.")

        @model_validator(mode="after")
        def _divisible(self) -> "SoftCoT.Options":
            if self.width % (2 * self.heads):
                raise ValueError(f"width must be a multiple of 2*heads={2 * self.heads}, got {self.width}")
            return self

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.frozen: list[Any] = []
        """A pretrained backbone, in a list: it is no submodule, so neither trained nor saved."""
        if options.backbone is None:
            self.backbone = _small_llama(options)
            width = options.width
        else:
            pretrained = load(options.backbone, "cpu", "float32")[0].base_model.eval().requires_grad_(False)
            self.frozen.append(pretrained)
            width = pretrained.config.get_text_config().hidden_size
        self.spread = Spread(options, num_latents, latent_dim)
        self.reader = StateReader(hidden_size)
        self.read = nn.Linear(hidden_size, width)
        self.thought_TW = nn.Parameter(torch.randn(num_latents, width) * 0.02)
        self.project = nn.Linear(width, latent_dim)
        self.static_TD = nn.Parameter(torch.zeros(num_latents, latent_dim))
        nn.init.normal_(self.read.weight, std=0.02)
        nn.init.normal_(self.project.weight, std=options.initial_mean / width**0.5)
        nn.init.zeros_(self.project.bias)

    def calibrate(self, states_BSH: Tensor, mask_BS: Tensor) -> None:
        """Learn what all questions have in common, from training questions' states, before training begins."""
        self.reader.calibrate(states_BSH, mask_BS)

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> TanhGaussian:
        """The policy at given latents; it does not depend on them."""
        states_BSH, telling_BS = self.reader(states_BSH, mask_BS)
        count = len(self.thought_TW)
        embeds = torch.cat([self.read(states_BSH), self.thought_TW.expand(len(states_BSH), -1, -1)], 1)
        seen = torch.cat([telling_BS, telling_BS.new_ones(len(telling_BS), count)], 1).long()
        places = torch.cat([mask_BS, mask_BS.new_ones(len(mask_BS), count)], 1).cumsum(1) - 1
        backbone = self.frozen[0].to(embeds.device) if self.frozen else self.backbone
        states = backbone(
            inputs_embeds=embeds, attention_mask=seen, position_ids=places.clamp(min=0), use_cache=False
        ).last_hidden_state[:, -count:]
        mean_BTD = self.project(states) + STATIC_GAIN * self.static_TD
        return self.spread.policy(mean_BTD.repeat_interleave(len(pre_NTD) // len(states_BSH), 0))


def _small_llama(options: SoftCoT.Options) -> Any:
    """A Llama without a vocabulary: it is fed embeddings only."""
    config = LlamaConfig(
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        vocab_size=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    made = LlamaModel(config)
    made.embed_tokens = nn.Identity()
    return made
