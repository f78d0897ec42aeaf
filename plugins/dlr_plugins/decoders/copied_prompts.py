"""Completing and scoring with a copy of the prompt for every chain: for models whose attention cannot be replaced."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from dlr_core.cost import Usage
from dlr_core.records import PromptCache
from dlr_plugins.decoders.cache_name import CACHE
from dlr_plugins.decoders.growing import growing_cache


def dynamic_cache(cache: PromptCache) -> DynamicCache:
    """A fresh Transformers cache over the same tensors: it grows by concatenation, so the original stays as it is."""
    whole, fresh = cache.whole(), DynamicCache()
    for layer, (key, value) in enumerate(zip(whole.keys, whole.values, strict=True)):
        fresh.update(key, value, layer)
    return fresh


def feed_after(module: Any, cache: PromptCache, embeds_NPH: Tensor, **kwargs: Any) -> Any:
    """A pass of the model, or of its body, over embeddings fed after a cache, which is left as it was."""
    mask = torch.cat([cache.mask_NS, cache.mask_NS.new_ones(embeds_NPH.shape[:2])], 1)
    return module(
        inputs_embeds=embeds_NPH,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1)[:, -embeds_NPH.shape[1] :],
        **{CACHE: dynamic_cache(cache)},
        use_cache=True,
        **kwargs,
    )


class CopiedStepper:
    """Feeds rows token by token, each with its whole prompt to itself."""

    def __init__(self, model: Any, cache: PromptCache, room: int) -> None:
        self.model, self.mask_RS = model, cache.mask_NS
        self.kv = growing_cache(cache.whole(), room)

    def feed(self, embeds_RPH: Tensor) -> Tensor:
        """Logits (R, V) after the last of the tokens that each row is fed."""
        self.mask_RS = torch.cat([self.mask_RS, self.mask_RS.new_ones(embeds_RPH.shape[:2])], 1)
        logits: Tensor = self.model(
            inputs_embeds=embeds_RPH,
            attention_mask=self.mask_RS,
            position_ids=(self.mask_RS.cumsum(1) - 1)[:, -embeds_RPH.shape[1] :],
            **{CACHE: self.kv},
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def keep(self, rows_M: Tensor) -> None:
        """Go on with these rows only, in this order; one that is named several times goes on in several ways."""
        self.mask_RS = self.mask_RS[rows_M]
        self.kv.batch_select_indices(rows_M)


def copied_log_prob(
    model: Any, cache: PromptCache, ids_NL: Tensor, mask_NL: Tensor, temperature: float, usage: Usage
) -> Tensor:
    """Log-probability (N,) of completions, one teacher-forced pass over all rows, padding included."""
    inputs = torch.cat([cache.pending_NPH, model.get_input_embeddings()(ids_NL[:, :-1])], 1)
    logits = feed_after(model, cache, inputs, logits_to_keep=ids_NL.shape[1]).logits
    back = logits.requires_grad
    usage.scored += inputs.shape[0] * inputs.shape[1]
    usage.backpropagated += inputs.shape[0] * inputs.shape[1] * back
    usage.logits += ids_NL.numel() * (1 + back)
    wanted = mask_NL.bool()
    loss = torch.nn.functional.cross_entropy(logits[wanted].float() / temperature, ids_NL[wanted], reduction="none")
    return torch.zeros_like(mask_NL).masked_scatter(wanted, -loss).sum(1)
