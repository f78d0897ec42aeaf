"""Weights rounded to float16: what they are, and that products of them are those of the rounded weights."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from dlr_plugins.decoders import products
from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.decoders.orders import FBGEMM, half_bytes, ordered
from dlr_plugins.decoders.packed_linear import pack
from dlr_plugins.decoders.products import packing_here
from dlr_plugins.decoders.quantised import quantise
from torch import nn
from torch.nn.functional import linear

from dlr_core.config import resolve
from dlr_core.errors import ModelError
from dlr_core.pipeline import build_trainer
from dlr_core.testing.decoder import decoder as check_decoder

halves = pytest.mark.skipif(not products.multiplies_float16(), reason="there is no FBGEMM for this CPU")
QUESTIONS = ["What is 2 + 2?", "Name a prime number between 20 and 30, please."]


def stack(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias), nn.SiLU(), nn.Linear(40, 17, bias)).requires_grad_(False)


def rounded(model):
    quantise(model, "float16")
    return model


def through(model, rows, weights):
    """What comes out, and the gradient of a weighted sum of it."""
    leaf = rows.clone().requires_grad_()
    out = model(leaf)
    (out * weights).sum().backward()
    return out.detach(), leaf.grad


def test_weights_are_the_nearest_that_float16_has_and_nothing_else_is_rounded():
    model = nn.Sequential(nn.Embedding(9, 24), stack(), nn.LayerNorm(17)).requires_grad_(False)
    for number in model.parameters():
        number.add_(1e-4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, found in rounded(model).state_dict().items():
        halved = name in ("1.0.weight", "1.2.weight")
        assert found.dtype == torch.float32
        assert torch.equal(found, before[name].half().float() if halved else before[name])
        assert torch.equal(found, before[name]) != halved


def test_a_weight_beyond_float16_is_refused_by_name():
    model = stack()
    model[2].weight[3, 3] = -7e4
    with pytest.raises(ModelError, match=r"decoder\.weights=float16: 2 has weights beyond ±65504"):
        quantise(model, "float16")


@halves
@pytest.mark.parametrize("rows", [0, 1, 5, 7, 64, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_rounds_neither_rows_nor_sums(rows, bias):
    weight, given = torch.randn(33, 24).half().float(), torch.randn(2, rows, 24)
    offset = torch.randn(33) if bias else None
    kept = ordered(weight, torch.float16, offset)
    assert isinstance(kept, FBGEMM)
    assert torch.equal(kept.dense(), weight)
    torch.testing.assert_close(kept.product(given), linear(given, weight, offset), atol=1e-5, rtol=1e-5)


@halves
@pytest.mark.parametrize("bias", [False, True])
def test_packed_layers_and_their_gradients_are_the_rounded_layers(small, bias):
    rows, weights = torch.randn(70, 24), torch.randn(70, 17)
    exact = through(rounded(stack(bias)), rows, weights)
    model = rounded(stack(bias))
    packed = pack(model, packing="float16")
    assert [len(one.together.held) for one in packed] == [1, 1]
    for found, true in zip(through(model, rows, weights), exact, strict=True):
        torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)
    assert [[copy.dtype for copy in one.together.held] for one in packed] == [[torch.float16] * 2] * 2
    assert not torch.allclose(exact[0], through(stack(bias), rows, weights)[0], atol=1e-5, rtol=1e-5)


@halves
def test_weights_are_held_once_and_are_the_same_to_the_bit_when_packing_is_undone(small):
    model, as_it_was = rounded(stack()), rounded(stack()).state_dict()
    packed = pack(model, packing="float16", head=model[2])
    assert [layer.weight.is_meta for layer in (model[0], model[2])] == [True, False]
    assert [one.together.packed.dtype for one in packed] == [torch.float16] * 2
    for one in packed:
        one.use(False)
    assert all(torch.equal(weight, as_it_was[name]) for name, weight in model.state_dict().items())
    packed[0].use(True)
    assert model[0].weight.is_meta


@halves
def test_a_rounded_model_is_one_model_packed_or_not(small, tiny_model, tiny_decoder):
    options = {"model": str(tiny_model), "weights": "float16"}
    packed, plain = (HFDecoder(HFDecoder.Options(**options, packed=on)) for on in (True, False))
    assert (len(packed.packed) > 0, plain.packed) == (True, [])
    assert packed.shares_prompts
    assert packed.fingerprint() == plain.fingerprint() != tiny_decoder.fingerprint()
    ids_NL, mask_NL = packed.encode_targets(["12", "because"])
    found = []
    for decoder in (packed, plain):
        cache = decoder.prefill(QUESTIONS, [], decoder.encode("?"), 0)
        pending = cache.pending_NPH.clone().requires_grad_()
        log_prob = decoder.log_prob(replace(cache, pending_NPH=pending), ids_NL, mask_NL)
        log_prob.sum().backward()
        found.append((decoder.decode(cache, 8).texts, log_prob.detach(), pending.grad))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


HELD = """
import psutil, torch
from dlr_plugins.decoders.orders import ordered
weight = torch.randn({shape})
ordered(weight, torch.float16).product(weight[:1])
before = psutil.Process().memory_info().rss
kept = [ordered(weight, torch.float16) for _ in range(8)]
print(kept[0].nbytes, (psutil.Process().memory_info().rss - before) // 8)
"""


@halves
@pytest.mark.parametrize(
    ("shape", "held"),
    [((4096, 1024), 2 * 4096 * 1024), ((4096, 520), 2 * 4096 * 1024), ((4090, 512), 2 * 4096 * 512)],
)
def test_what_is_held_is_held_in_whole_blocks(shape, held):
    told = subprocess.run(
        [sys.executable, "-c", HELD.format(shape=shape)], capture_output=True, text=True, check=True
    ).stdout
    said, taken = map(int, told.split())
    assert said == held
    assert 0.9 * held < taken < 1.1 * held


@halves
def test_a_plan_counts_every_layer_forward_and_back(small, tiny_model):
    options = HFDecoder.Options(model=str(tiny_model), weights="float16")
    made, planned = HFDecoder(options), HFDecoder.outline(options).size
    groups = {one.together for one in made.packed}
    for together in groups:
        together.back(torch.zeros(1, sum(together.sizes)))
    own = [weight for weight in made.model.parameters() if not weight.is_meta]
    assert planned.weights == sum(part.nbytes for part in [*own, *made.model.buffers()])
    each = [(layer.out_features, layer.in_features) for together in groups for layer in together.layers]
    assert planned.packed == sum(half_bytes(one, other) + half_bytes(other, one) for one, other in each)
    held = sum(copy.nbytes for together in groups for copy in together.held)
    assert held < planned.packed < 2 * held


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_not_packed_is_planned_as_what_it_is(packed, tiny_model):
    sizes = [
        HFDecoder.outline(HFDecoder.Options(model=str(tiny_model), **settings)).size
        for settings in ({"weights": "float16", "packed": packed}, {"packed": False})
    ]
    assert [(size.weights, size.packed) for size in sizes] == [(sizes[1].weights, 0)] * 2


@halves
def test_a_decoder_of_rounded_weights_keeps_a_decoders_contract(small, host):
    check_decoder(lambda options: host.create("decoder", "hf", {**options, "weights": "float16"}))


@halves
def test_a_run_trains_on_them_and_leaves_them_as_they_were(small, host, tiny_model):
    settings = {
        "env": "dlr/Toy-v0", "steps": 2, "minutes": None, "loggers": [], "assistant": "small-gpt",
        "decoder": {"model": str(tiny_model), "max_new_tokens": 12, "weights": "float16"},
        "space": {"num_latents": 2, "latent_dim": 4}, "batch": {"questions": 2, "samples": 2},
    }  # fmt: skip
    trainer = build_trainer(resolve(settings, host), host)
    decoder = trainer.env.engine.decoder
    before, start = decoder.fingerprint(), [parameter.detach().clone() for parameter in trainer.parameters]
    assert {copy.dtype for one in decoder.packed for copy in one.together.held} == {torch.float16}
    assert len(list(trainer.run())) == 2
    assert any(not torch.equal(one, other) for one, other in zip(start, trainer.parameters, strict=True))
    assert decoder.fingerprint() == before
    assert trainer.frozen.touched() is None


@pytest.mark.parametrize(
    ("device", "dtype", "able", "used", "said"),
    [
        ("cpu", torch.float32, True, "float16", []),
        ("cpu", torch.float32, False, "float32", ["nothing is gained: there is no FBGEMM"]),
        ("cuda", torch.bfloat16, True, "float32", ["nothing is gained: the model is in bfloat16 on cuda"]),
    ],
)
def test_weights_are_packed_in_float16_where_that_can_be_and_else_it_is_said(
    device, dtype, able, used, said, monkeypatch, caplog
):
    monkeypatch.setattr(products, "multiplies_float16", lambda: able)
    assert packing_here("float32", "float16", torch.device(device), dtype) == used
    assert all(part in line for part, line in zip(said, caplog.messages, strict=True))


@halves
def test_a_model_that_is_too_small_to_be_packed_says_that_nothing_is_gained(tiny_model, caplog):
    assert HFDecoder(HFDecoder.Options(model=str(tiny_model), weights="float16")).packed == []
    assert "decoder.weights=float16 gains nothing" in caplog.text
