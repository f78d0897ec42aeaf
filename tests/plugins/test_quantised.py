"""Frozen weights in 8 and 4 bits: what is kept, what it stands for, what a run with it is."""

import pytest
import torch
from dlr_plugins.decoders import packed_linear
from dlr_plugins.decoders.packed_linear import PackedLinear, pack
from dlr_plugins.decoders.quantised import (
    GROUP,
    QuantisedLinear,
    check_weights,
    eight_bits,
    kept_bytes,
    paired,
    parted,
    quantise,
)
from torch import nn

from dlr_core.config import resolve
from dlr_core.errors import ConfigError, ModelError
from dlr_core.pipeline import build_trainer
from dlr_core.testing.decoder import decoder as check_decoder

BITS = ["int8", "int4"]
QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please.", "3 * 4 ="]


@pytest.fixture(scope="module", params=BITS)
def decoder(request, tiny_model):
    from dlr_core import PluginHost

    options = {"model": str(tiny_model), "weights": request.param}
    return PluginHost.from_entry_points().create("decoder", "hf", options)


def layer(inputs=64, outputs=24, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias).requires_grad_(False)


def test_two_codes_a_byte_are_the_codes_again():
    codes = torch.arange(16, dtype=torch.uint8).repeat(3, 4)
    kept = paired(codes)
    assert kept.shape == (3, 32)
    assert kept.dtype == torch.uint8
    assert torch.equal(parted(kept), codes)


def test_a_weight_in_8_bits_is_off_by_half_a_step_of_its_row_at_most():
    full = layer()
    off = (QuantisedLinear(full, "int8").weight() - full.weight).abs()
    step = 2 * full.weight.abs().amax(1, keepdim=True) / 255
    assert bool((off <= step * 0.501).sum() >= off.numel() - len(off))  # a row's largest may be off by a whole step
    assert bool((off <= step * 1.001).all())
    assert 0.2 < float((off / step).mean()) < 0.3  # a quarter, if steps are as fine as said


def test_a_weight_in_4_bits_is_off_by_half_a_step_of_its_group_at_most():
    full = layer()
    off = (QuantisedLinear(full, "int4").weight() - full.weight).abs().unflatten(1, (-1, GROUP))
    groups = full.weight.unflatten(1, (-1, GROUP))
    step = ((groups.amax(2) - groups.amin(2)) / 15)[..., None]
    assert bool((off <= step * 0.52).all())  # scale and least value are rounded to float16
    assert 0.2 < float((off / step).mean()) < 0.3


def test_weights_that_lie_on_such_a_grid_are_kept_exactly():
    torch.manual_seed(0)
    codes = torch.randint(0, 16, (24, 2, GROUP))
    codes[..., 0], codes[..., 1] = 0, 15
    scale, least = (torch.rand(24, 2, 1) / 64).half().float(), -torch.rand(24, 2, 1).half().float()
    full = layer()
    full.weight.copy_((codes * scale + least).flatten(1))
    assert torch.equal(QuantisedLinear(full, "int4").weight(), full.weight)


@pytest.mark.parametrize("weights", BITS)
@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_a_layer_of_one_value_is_kept(weights, value):
    full = layer()
    full.weight.fill_(value)
    torch.testing.assert_close(QuantisedLinear(full, weights).weight(), full.weight, rtol=0.005, atol=0)


@pytest.mark.parametrize("weights", BITS)
def test_half_precision_has_weights_of_its_own_kind(weights):
    full, half = layer(), layer().to(torch.bfloat16)
    kept = QuantisedLinear(half, weights)
    assert kept.weight().dtype == torch.bfloat16
    assert kept(torch.ones(1, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    torch.testing.assert_close(kept.weight().float(), full.weight, rtol=0, atol=0.012)  # a 15th of 0.25 halved, and 2⁻⁹


def test_codes_in_8_bits_are_those_that_torchao_chooses():
    quantization = pytest.importorskip("torchao.quantization")
    theirs = layer(bias=False)
    codes, scale, _ = eight_bits(theirs.weight.detach().clone())
    quantization.quantize_(theirs, quantization.IntxWeightOnlyConfig(torch.int8, quantization.PerAxis(0)))
    assert torch.equal(codes, theirs.weight.qdata)
    assert torch.equal(scale, theirs.weight.scale)


@pytest.mark.parametrize("weights", BITS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_and_its_gradient_are_those_of_the_weights_it_stands_for(weights, bias):
    kept = QuantisedLinear(layer(bias=bias), weights)
    rows = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    found = []
    for one in (kept, lambda x: nn.functional.linear(x, kept.weight(), kept.bias)):
        leaf = rows.clone().requires_grad_()
        out = one(leaf)
        (out * torch.arange(24)).sum().backward()
        found.append((out.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(kept(rows), found[0][0])


def test_a_pass_with_gradients_keeps_no_weights():
    kept, held = QuantisedLinear(layer(), "int4"), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x) or x, lambda x: x):
        kept(torch.randn(2, 64, requires_grad=True))
    assert held == []


@pytest.mark.parametrize("weights", BITS)
def test_bytes_are_those_that_are_planned(weights):
    kept = QuantisedLinear(layer(bias=False), weights)
    assert sum(part.nbytes for part in kept.parameters()) == kept_bytes(24, 64, weights, 4)


def test_what_does_not_fit_stays(monkeypatch):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd, self.even, self.head = layer(40), layer(64), layer(64)

        def get_output_embeddings(self):
            return self.head

    model = Two()
    quantise(model, "int4")
    assert [type(part) for part in model.children()] == [nn.Linear, QuantisedLinear, nn.Linear]
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", 0)
    assert len(pack(model)) == 2
    assert not isinstance(model.even.forward, PackedLinear)
    alone = Two()
    alone.even = layer(40)
    with pytest.raises(ModelError, match="Two has no linear layer that can be kept in int4"):
        quantise(alone, "int4")


def test_full_weights_are_left_alone():
    model = nn.Sequential(layer())
    quantise(model, "full")
    assert type(model[0]) is nn.Linear


def test_a_spread_model_is_refused():
    check_weights("full", spread=True)
    check_weights("int4", spread=False)
    with pytest.raises(ConfigError, match=r"expected full with decoder.device_map, got int8"):
        check_weights("int8", spread=True)


@pytest.mark.parametrize("weights", BITS)
def test_a_decoder_of_quantised_weights_keeps_a_decoders_contract(host, weights):
    check_decoder(lambda options: host.create("decoder", "hf", {**options, "weights": weights}))


def test_likelihoods_say_what_was_decoded_and_their_gradient_is_right(decoder):
    cache = decoder.prefill(QUESTIONS, decoder.encode(" Let me"), decoder.encode("?"), 2)
    done = decoder.decode(cache, 8)
    own = decoder.log_prob(cache, done.ids_NL, done.mask_NL)
    other_NL = done.ids_NL.clone()
    other_NL[:, 0] = decoder.encode("q")[0]
    assert bool((own > decoder.log_prob(cache, other_NL, done.mask_NL)).all())
    pending = cache.pending_NPH.clone().requires_grad_()

    def at(pending_NPH):
        moved = type(cache)(cache.keys, cache.values, cache.mask_NS, cache.states_NSH, pending_NPH, 2)
        return decoder.log_prob(moved, done.ids_NL, done.mask_NL).sum()

    at(pending).backward()
    along = pending.grad / pending.grad.norm()
    with torch.no_grad():
        slope = float(at(pending + 0.01 * along) - at(pending - 0.01 * along)) / 0.02
    assert slope == pytest.approx(float(pending.grad.norm()), rel=0.03)


def test_flops_are_the_full_models_and_the_digest_is_another(decoder, tiny_decoder):
    assert decoder.flops_per_token == tiny_decoder.flops_per_token
    assert decoder.dtype == tiny_decoder.dtype
    before = decoder.fingerprint()
    assert before != tiny_decoder.fingerprint()
    codes = next(part for part in decoder.model.modules() if isinstance(part, QuantisedLinear)).codes
    codes[0, 0] ^= 1
    assert decoder.fingerprint() != before
    codes[0, 0] ^= 1
    assert decoder.fingerprint() == before


@pytest.mark.parametrize("weights", BITS)
def test_a_plan_knows_what_the_weights_take(host, tiny_model, weights):
    decoder = host.create("decoder", "hf", {"model": str(tiny_model), "weights": weights})
    kind = type(decoder)
    outline = kind.outline(kind.Options(model=str(tiny_model), weights=weights))
    full = kind.outline(kind.Options(model=str(tiny_model)))
    parts = [*decoder.model.parameters(), *decoder.model.buffers()]
    assert outline.size.weights == sum(part.nbytes for part in parts) < full.size.weights


def run_settings(model, weights):
    return {
        "env": "dlr/Toy-v0", "steps": 2, "minutes": None, "loggers": [], "assistant": "small-gpt",
        "decoder": {"model": str(model), "max_new_tokens": 12, "weights": weights},
        "space": {"num_latents": 2, "latent_dim": 4}, "batch": {"questions": 2, "samples": 2},
    }  # fmt: skip


@pytest.mark.parametrize("weights", BITS)
def test_a_run_trains_on_them_and_leaves_them_as_they_were(host, tiny_model, weights):
    trainer = build_trainer(resolve(run_settings(tiny_model, weights), host), host)
    decoder = trainer.env.engine.decoder
    before = decoder.fingerprint()
    start = [parameter.detach().clone() for parameter in trainer.parameters]
    rows = list(trainer.run())
    assert len(rows) == 2
    assert any(not torch.equal(one, other) for one, other in zip(start, trainer.parameters, strict=True))
    assert decoder.fingerprint() == before
    assert trainer.frozen.touched() is None
