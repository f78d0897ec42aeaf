"""Frozen weights in 8 and 4 bits: what is kept, what it stands for, what a run with it is."""

import pytest
import torch
from dlr_plugins.decoders import packed_linear
from dlr_plugins.decoders.packed_linear import PackedLinear, pack
from dlr_plugins.decoders.quantised import (
    QuantisedLinear,
    check_weights,
    kept_bytes,
    paired,
    parted,
    quantise,
    rounded,
)
from torch import nn

from dlr_core.config import resolve
from dlr_core.errors import ConfigError, ModelError
from dlr_core.pipeline import build_trainer
from dlr_core.testing.decoder import decoder as check_decoder

BITS = ["int8", "int4"]
STEPS = {"int8": 255, "int4": 15}
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
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 4)
    kept = paired(codes)
    assert kept.shape == (3, 32)
    assert kept.dtype == torch.uint8
    assert torch.equal(parted(kept), codes)


@pytest.mark.parametrize("weights", BITS)
def test_a_weight_is_off_by_half_a_step_of_its_group_at_most(weights):
    full = layer()
    kept = QuantisedLinear(full, weights)
    groups = full.weight.unflatten(1, (kept.scale_OG.shape[1], -1))
    least, most = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    # int8 is symmetric: its range is twice the largest magnitude. Zero points are whole numbers: one more half step.
    width = 2 * groups.abs().amax(2) if weights == "int8" else most - least
    off = (kept.weight() - full.weight).abs().unflatten(1, (kept.scale_OG.shape[1], -1)).amax(2)
    assert bool((off <= width / STEPS[weights] * 1.01).all())
    assert bool((off > 0).all())


@pytest.mark.parametrize("weights", BITS)
def test_codes_are_those_that_torchao_chooses(weights):
    quantization = pytest.importorskip("torchao.quantization")
    granularity = pytest.importorskip("torchao.quantization.granularity")
    config = quantization.IntxWeightOnlyConfig(torch.int8, granularity.PerAxis(0))
    if weights == "int4":
        mapping = quantization.MappingType.ASYMMETRIC
        config = quantization.IntxWeightOnlyConfig(torch.int4, granularity.PerGroup(32), mapping)
    theirs = layer(bias=False)
    own = rounded(theirs.weight.detach().clone(), weights)
    quantization.quantize_(theirs, config)
    kept = theirs.weight
    for one, other in zip(own, (kept.qdata, kept.scale, kept.zero_point), strict=True):
        assert torch.equal(one, other)


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
