"""A pre-norm transformer block with a key/value cache."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

Past = tuple[Tensor, Tensor]


def padding_bias(mask_BS: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, 1, S) additive attention bias: a large negative number on padding."""
    return ((1 - mask_BS) * -1e9).to(dtype)[:, None, None, :]


class Block(nn.Module):
    """Causal self-attention and a GELU MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, hidden: Tensor, past: Past | None, prompt_bias: Tensor) -> tuple[Tensor, Past]:
        """Attend to everything before and up to each position.

        Args:
            hidden: (N, P, width) new positions.
            past: keys and values of earlier positions, each (N, heads, S', width per head).
            prompt_bias: (N, 1, 1, S) bias of the first S positions, the question's.

        Returns:
            New hidden states and the grown keys and values.
        """
        rows, new, width = hidden.shape
        qkv = self.qkv(self.norm_attention(hidden)).view(rows, new, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        total = key.shape[2]
        bias = hidden.new_zeros(rows, 1, new, total)
        bias[..., : prompt_bias.shape[-1]] += prompt_bias
        future = torch.ones(new, total, dtype=torch.bool, device=hidden.device).triu(total - new + 1)
        attended = scaled_dot_product_attention(query, key, value, bias.masked_fill(future, -1e9))
        hidden = hidden + self.out(attended.transpose(1, 2).reshape(rows, new, width))
        return hidden + self.mlp(self.norm_mlp(hidden)), (key, value)
