"""Gated feed-forward parts that keep less for their way back."""

import pytest
import torch
from dlr_plugins.decoders.gated import gated, spare
from torch import nn


class Feed(nn.Module):
    """As Transformers writes one."""

    def __init__(self, act_fn):
        super().__init__()
        torch.manual_seed(0)
        self.gate_proj, self.up_proj = nn.Linear(8, 24, bias=False), nn.Linear(8, 24, bias=False)
        self.down_proj, self.act_fn = nn.Linear(24, 8, bias=False), act_fn
        self.requires_grad_(False)

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Scaled(Feed):
    """Another part with the same names."""

    def forward(self, x):
        return 2 * super().forward(x)


class Model(nn.Module):
    """One part, and the input table by which its width is known."""

    def __init__(self, part):
        super().__init__()
        self.table, self.part = nn.Embedding(3, 8), part

    def get_input_embeddings(self):
        return self.table


def through(part, rows):
    """What comes out, its gradient, and the numbers that are kept for it, weights left out."""
    kept, leaf = {}, rows.clone().requires_grad_()
    own = {weight.data_ptr() for weight in part.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = part(leaf)
    out.square().sum().backward()
    return out.detach(), leaf.grad, sum(kept.values())


def test_a_part_gives_the_same_bits_and_keeps_two_tensors_instead_of_three():
    rows, part = torch.randn(5, 8), Feed(nn.SiLU())
    out, slope, kept = through(part, rows)
    assert spare(Model(part)) == 1
    found, found_slope, found_kept = through(part, rows)
    with torch.no_grad():
        assert torch.equal(part(rows), out)
    assert torch.equal(found, out)
    assert torch.equal(found_slope, slope)
    assert kept - found_kept == 5 * 24


@pytest.mark.parametrize("part", [Feed(nn.GELU()), Scaled(nn.SiLU())])
def test_what_is_something_else_is_left_alone(part):
    assert spare(Model(part)) == 0
    assert "forward" not in vars(part)


def test_the_models_of_the_default_kind_have_one_a_layer(tiny_decoder):
    layers = tiny_decoder.model.config.num_hidden_layers
    assert len(gated(tiny_decoder.model)) == layers
    assert sum("forward" in vars(part) for part in gated(tiny_decoder.model)) == layers
