"""Can a model's attention be replaced by one that shares prompts? Tried, not assumed."""

from typing import Any

import torch
from torch import Tensor

from dlr_core.errors import kind_and_line
from dlr_core.records import PromptCache
from dlr_plugins.decoders.copied_prompts import feed_after
from dlr_plugins.decoders.shared_prompts import NAME, Chains


@torch.no_grad()
def replace_attention(model: Any, prompt: PromptCache, ids_2: Tensor) -> tuple[str | None, bool]:
    """Let a model share prompts from now on, or leave it as it is.

    Two chains on one prompt, of one token and of two, must have the logits that the model gives by itself.

    Args:
        model: a causal language model.
        prompt: one, nothing pending.
        ids_2: two tokens to go on with.

    Returns:
        Why it cannot (None: it can), and whether its logits are the product of final states and output table (and a
        bias) with nothing done to them after.
    """
    head, before = model.get_output_embeddings(), model.config._attn_implementation
    embeds_12H = model.get_input_embeddings()(ids_2)[None]
    states = feed_after(model.base_model, prompt, embeds_12H).last_hidden_state
    logits = feed_after(model, prompt, embeds_12H).logits[0]
    there = type(head) is torch.nn.Linear and head.weight.device.type != "meta"  # a spread model may keep it elsewhere
    plain_head = there and _near(head(states)[0].to(logits.device), logits)
    if before != "sdpa":
        return f"its attention is {before!r}", plain_head
    if not model._can_set_attn_implementation():
        return "its class does not take attention functions", plain_head
    try:
        model.set_attn_implementation(NAME)
        chains = Chains(prompt.share(torch.zeros(2, dtype=torch.long, device=ids_2.device)))
        kept_M = torch.tensor([0, 2, 3], device=ids_2.device)
        asked: Any = torch.arange(3, device=ids_2.device)
        packed = chains.read(model, embeds_12H[0, [0, 0, 1]], 2, kept_M, logits_to_keep=asked).logits[0]
    except Exception as error:  # whatever a stranger's model raises, it still works by copying
        reason = kind_and_line(error)
    else:
        if _near(packed, logits[[0, 0, 1]]):
            return None, plain_head
        reason = "its logits come out differently"
    model.set_attn_implementation(before)
    return reason, plain_head


def _near(one: Tensor, other: Tensor) -> bool:
    """Equal up to rounding, at the scale of the largest entries."""
    tolerance = torch.finfo(other.dtype).eps ** 0.5 * float(other.abs().max())
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance).all())
