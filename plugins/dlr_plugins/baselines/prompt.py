"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691), by PEFT."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import DynamicCache

from dlr_plugins.baselines.options import SoftPromptOptions
from dlr_plugins.baselines.soft_prompt import SoftPrompt


class PromptTuning(SoftPrompt):
    """Learned input embeddings of T virtual tokens in front of the prompt."""

    label = "prompt tuning (gold, supervised)"

    class Options(SoftPromptOptions):
        """Settings of ``prompt``."""

        lr: float = Field(1e-2, gt=0, description="Learning rate.")

    def peft_config(self) -> Any:
        """Input embeddings, nothing else."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.virtual_tokens)

    def as_weights(self, ids_1T: Tensor) -> Tensor:
        """Embeddings of real tokens (section 3.2 there)."""
        embeds_TH: Tensor = self.decoder.embedding_table()[ids_1T[0]]
        return embeds_TH

    def open_prompt(self, embeds_NPH: Tensor) -> tuple[DynamicCache, Tensor]:
        """The virtual tokens are fed before the prompt."""
        virtual_NTH = self.model.get_prompt(batch_size=len(embeds_NPH)).to(embeds_NPH.dtype)
        return DynamicCache(), torch.cat([virtual_NTH, embeds_NPH], 1)
