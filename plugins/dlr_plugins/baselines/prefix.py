"""Prefix tuning (Li and Liang 2021, arXiv 2101.00190), by PEFT."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import DynamicCache

from dlr_plugins.baselines.options import SoftPromptOptions
from dlr_plugins.baselines.soft_prompt import SoftPrompt
from dlr_plugins.decoders.cache_name import CACHE


class PrefixTuning(SoftPrompt):
    """Learned keys and values of T virtual tokens in every layer, in front of the prompt."""

    label = "prefix tuning (gold, supervised)"

    class Options(SoftPromptOptions):
        """Settings of ``prefix``."""

        lr: float = Field(1e-2, gt=0, description="Learning rate.")

    def peft_config(self) -> Any:
        """No reparameterising network: the keys and values are the parameters."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.virtual_tokens)

    def as_weights(self, ids_1T: Tensor) -> Tensor:
        """Keys and values, layer by layer, of real tokens at the prompt's first positions (section 7.4 there)."""
        out = self.decoder.body(input_ids=ids_1T, use_cache=True)
        pairs = [part[0].transpose(0, 1) for layer in getattr(out, CACHE).layers for part in (layer.keys, layer.values)]
        return torch.stack(pairs, 1).flatten(1)

    def open_prompt(self, embeds_NPH: Tensor) -> tuple[DynamicCache, Tensor]:
        """Keys and values are in the cache; nothing more is fed."""
        return self.model.get_prompt(batch_size=len(embeds_NPH)), embeds_NPH
