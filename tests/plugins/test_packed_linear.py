"""Frozen weights in a library's order: the same model, faster."""

import threading
from dataclasses import replace

import pytest
import torch
from dlr_plugins.decoders import orders, packed_linear, products
from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.decoders.packed_linear import PackedLinear, Together, pack, reading_alike
from dlr_plugins.decoders.products import packing_here
from torch import nn

from dlr_core.errors import ConfigError

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
rounds = pytest.mark.skipif(not products.multiplies_bfloat16(), reason="this CPU has no bfloat16 products")
QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please.", "3 * 4 ="]


def stack(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias), nn.SiLU(), nn.Linear(40, 16, bias)).requires_grad_(False)


def through(model, rows, weights):
    """What comes out, and the gradient of a weighted sum of it."""
    leaf = rows.clone().requires_grad_()
    out = model(leaf)
    (out * weights).sum().backward()
    return out.detach(), leaf.grad


@rounds
@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_products_round_forward_and_back_and_give_float32(small, bias):
    rows, weights = torch.randn(70, 24), torch.randn(70, 16)
    exact = through(stack(bias), rows, weights)
    model = stack(bias)
    packed = pack(model, packing="bfloat16")
    assert [one.together.packed.dtype for one in packed] == [torch.bfloat16] * 2
    assert [len(one.together.held) for one in packed] == [1, 1]
    for found, true in zip(through(model, rows, weights), exact, strict=True):
        assert found.dtype == torch.float32
        off = (found - true).abs().max() / true.abs().max()
        assert 1e-4 < off < 2e-2
    assert [len(one.together.held) for one in packed] == [2, 2]


@rounds
def test_what_the_head_gives_is_not_rounded_and_its_gradient_is(small):
    model, rows, weights = stack(), torch.randn(70, 40), torch.randn(70, 16)
    pack(model, packing="bfloat16", head=model[2])
    (found, slope), (true, exact) = through(model[2], rows, weights), through(stack()[2], rows, weights)
    torch.testing.assert_close(found, true, atol=1e-6, rtol=1e-6)
    assert 1e-4 < (slope - exact).abs().max() / exact.abs().max() < 2e-2
    assert not torch.allclose(model[0](rows[:, :24]), stack()[0](rows[:, :24]), atol=1e-4)


@rounds
def test_a_model_with_bfloat16_products_is_the_same_model_and_shares_prompts(small, tiny_model, tiny_decoder):
    rounded = HFDecoder(HFDecoder.Options(model=str(tiny_model), products="bfloat16"))
    assert rounded.shares_prompts
    assert rounded.fingerprint() == tiny_decoder.fingerprint()
    assert any(len(one.together.sizes) == 3 for one in rounded.packed)  # queries, keys and values
    ids_NL, mask_NL = tiny_decoder.encode_targets(["12", "because"])
    found, slopes = [], []
    for decoder in (rounded, tiny_decoder):
        cache = decoder.prefill(QUESTIONS[:2], [], decoder.encode("?"), 0)
        pending = cache.pending_NPH.clone().requires_grad_()
        found.append(decoder.log_prob(replace(cache, pending_NPH=pending), ids_NL, mask_NL))
        found[-1].sum().backward()
        slopes.append(pending.grad)
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, atol=0.1, rtol=0.01)
    assert 1e-4 < (slopes[0] - slopes[1]).abs().max() / slopes[1].abs().max() < 0.1


@pytest.mark.parametrize("settings", [{}, pytest.param({"products": "bfloat16"}, marks=rounds)])
def test_the_copies_that_are_planned_are_those_that_are_made(settings, small, tiny_model):
    options = HFDecoder.Options(model=str(tiny_model), **settings)
    made = HFDecoder(options)
    cache = made.prefill(QUESTIONS[:2], [], made.encode("?"), 0)
    ids_NL, mask_NL = made.encode_targets(["12", "because"])
    pending = cache.pending_NPH.clone().requires_grad_()
    made.log_prob(replace(cache, pending_NPH=pending), ids_NL, mask_NL).sum().backward()
    held = [copy for together in {one.together for one in made.packed} for copy in together.held]
    held += [weight for weight in made.model.parameters() if not weight.is_meta]
    planned = HFDecoder.outline(options).size
    buffers = sum(buffer.nbytes for buffer in made.model.buffers())
    assert planned.weights + planned.packed == sum(one.nbytes for one in held) + buffers


@pytest.mark.parametrize("settings", [{"packed": False}, {"weights": "int8"}, {"weights": "float16"}])
def test_bfloat16_products_of_what_is_not_to_be_packed_are_refused(settings, tiny_model):
    options = HFDecoder.Options(model=str(tiny_model), products="bfloat16", **settings)
    for made in (HFDecoder, HFDecoder.outline):
        with pytest.raises(ConfigError, match=r"decoder\.products=bfloat16"):
            made(options)


@pytest.mark.parametrize(
    ("amx", "able", "dtype", "used", "said"),
    [
        (True, True, torch.float32, "bfloat16", []),
        (False, True, torch.float32, "bfloat16", ["no AMX"]),
        (False, False, torch.float32, "float32", ["left out: this CPU"]),
        (True, True, torch.bfloat16, "float32", ["left out: the model is in bfloat16 on cpu"]),
    ],
)
def test_bfloat16_products_are_used_where_there_are_some_and_else_left_out_aloud(
    amx, able, dtype, used, said, monkeypatch, caplog
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda: able)
    assert packing_here("bfloat16", "full", torch.device("cpu"), dtype) == used
    assert all(part in line for part, line in zip(said, caplog.messages, strict=True))
    assert packing_here("float32", "full", torch.device("cpu"), dtype) == "float32"
    assert len(caplog.messages) == len(said)


def test_a_model_that_is_not_packed_says_that_its_products_are_not_bfloat16(tiny_model, caplog):
    assert HFDecoder(HFDecoder.Options(model=str(tiny_model), products="bfloat16")).packed == []
    assert "not packed here" in caplog.text or "this CPU has no such products" in caplog.text


@pytest.mark.parametrize("shape", [(5, 24), (1, 70, 24), (2, 3, 24), (0, 24), (300, 24)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mkl", [False, True])
def test_packed_layers_and_their_gradients_are_the_layers(small, mkl, bias, shape, monkeypatch):
    monkeypatch.setattr(packed_linear, "mkl_is_faster", lambda: mkl)
    model, rows = stack(bias), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(*shape[:-1], 16, generator=torch.Generator().manual_seed(2))
    found = []
    for on in (False, True):
        if on:
            assert len(pack(model)) == 2
        found.append(through(model, rows, weights))
        with torch.no_grad():
            torch.testing.assert_close(model(rows), found[-1][0], atol=1e-6, rtol=1e-6)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert isinstance(model[0].forward, PackedLinear)
    if mkl:
        monkeypatch.delattr(packed_linear, "product")  # oneDNN's
        together = model[0].forward.together
        torch.testing.assert_close(together.back(torch.ones(2, 40)), stack(bias)[0].weight.sum(0).expand(2, -1))
    assert all(weight.grad is None for weight in model.parameters())


def test_products_of_few_different_numbers_of_rows_are_asked_for_and_none_is_much_larger():
    asked = {count: orders.rounded(count) for count in range(1, 2000)}
    assert all(count <= rows < count + max(8, min(32, count // 8)) for count, rows in asked.items())
    assert all(asked[count] == count for count in range(1, 9))
    assert len({asked[count] for count in range(1, 257)}) == 39
    assert len(set(asked.values())) < 100


def test_weights_are_held_once_and_are_the_same_to_the_bit_when_packing_is_undone(small):
    model, as_it_was = stack(), stack().state_dict()
    packed = pack(model)
    assert [layer.weight.is_meta for layer in (model[0], model[2])] == [True, True]
    for one, name in zip(packed, ("0.weight", "2.weight"), strict=True):
        assert torch.equal(one.weight(), as_it_was[name])
        one.use(False)
        one.use(False)
    assert list(model.state_dict()) == list(as_it_was)
    assert all(torch.equal(weight, as_it_was[name]) for name, weight in model.state_dict().items())
    assert not any(weight.requires_grad for weight in model.parameters())
    assert "forward" not in vars(model[0])
    packed[0].use(True)
    assert model[0].weight.is_meta
    assert not model[0].weight.requires_grad


def test_a_head_and_weights_that_others_have_too_are_kept(small):
    model = nn.Sequential(nn.Embedding(40, 24), nn.Linear(24, 40), nn.Linear(40, 16)).requires_grad_(False)
    model[1].weight = model[0].weight
    pack(model, head=model[2])
    assert not any(weight.is_meta for weight in model.parameters())


def test_what_is_left_of_a_model_is_no_part_of_a_file_that_was_mapped(small):
    model = stack()
    whole = torch.zeros(1000)
    model[0].bias.data = whole[:40]
    pack(model)
    assert model[0].bias.untyped_storage().nbytes() == 160


def test_layers_that_are_one_product_have_each_its_own_weights(small):
    model = Reader()
    own = [layer.weight.clone() for layer in (model.a, model.b, model.c)]
    packed = pack(model, lambda: model(torch.ones(1, 24)))
    assert len({one.together for one in packed}) == 1
    assert all(torch.equal(one.weight(), weight) for one, weight in zip(packed, own, strict=True))


@pytest.mark.parametrize(("least", "most", "left"), [(1 << 20, 0.1, True), (0, 0.0, True), (0, 0.1, False)])
def test_what_is_too_small_or_would_hold_too_much_twice_is_left_alone(monkeypatch, least, most, left):
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", least)
    monkeypatch.setattr(packed_linear, "MOST_OF_MEMORY", most)
    model = stack()
    assert (pack(model, head=model[2]) == []) == left


def test_other_dtypes_are_left_alone(small):
    assert pack(stack().to(torch.bfloat16)) == []


def test_a_packed_model_is_the_same_model(small, host, tiny_model, tiny_decoder):
    packed = host.create("decoder", "hf", {"model": str(tiny_model)})
    assert packed.packed
    assert any(len(one.together.sizes) == 3 for one in packed.packed)  # queries, keys and values
    assert not tiny_decoder.packed
    assert packed.fingerprint() == tiny_decoder.fingerprint()
    ids_NL, mask_NL = packed.encode_targets(["12", "7 eggs", "", "because"])
    found = []
    for decoder in (packed, tiny_decoder):
        cache = decoder.prefill(QUESTIONS, decoder.encode(" Let me"), decoder.encode("?"), 2)
        pending = cache.pending_NPH.clone().requires_grad_()
        log_prob = decoder.log_prob(type(cache)(cache.keys, cache.values, cache.mask_NS, cache.states_NSH, pending, 2),
                                    ids_NL, mask_NL, 0.8)  # fmt: skip
        log_prob.sum().backward()
        found.append((decoder.decode(cache, 8).texts, log_prob.detach(), pending.grad))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-4, rtol=1e-3)


def test_a_decoder_makes_no_copies_where_it_is_told_not_to(small, monkeypatch, tiny_model):
    monkeypatch.setattr(packed_linear, "MOST_OF_MEMORY", 1.0)
    one, other = (HFDecoder(HFDecoder.Options(model=str(tiny_model), packed=packed)) for packed in (True, False))
    assert (len(one.packed) > 0, len(other.packed)) == (True, 0)
    assert one.fingerprint() == other.fingerprint()


class Reader(nn.Module):
    """Three layers of one input; what comes between them is the test's."""

    def __init__(self, between=lambda rows: rows):
        super().__init__()
        torch.manual_seed(3)
        self.between = between
        self.a, self.b, self.c = nn.Linear(24, 40), nn.Linear(24, 8, bias=False), nn.Linear(24, 16)
        self.requires_grad_(False)

    def forward(self, rows):
        first = self.a(rows)
        rows = self.between(rows)
        return torch.cat([first, self.b(rows), self.c(rows)], -1)


def names(model):
    layers = {name: layer for name, layer in model.named_modules() if type(layer) is nn.Linear}
    found = reading_alike(layers, lambda: model(torch.ones(1, 24)))
    back = {layer: name for name, layer in layers.items()}
    return sorted("".join(back[layer][-1] for layer in group) for group in found)


def test_layers_that_read_the_very_same_tensor_are_one_product():
    assert names(Reader()) == ["abc"]
    assert names(Reader(lambda rows: rows.clone())) == ["a", "bc"]
    assert names(Reader(lambda rows: rows.add_(1))) == ["a", "bc"]


def test_layers_of_other_modules_and_layers_called_twice_are_alone():
    two = nn.ModuleList([Reader(), Reader()])
    two.forward = lambda rows: [part(rows) for part in two]
    assert names(two) == ["abc", "abc"]
    again = Reader()
    again.between = lambda rows: (again.a(rows), rows)[1]
    assert names(again) == ["a", "bc"]
    unused = Reader()
    unused.forward = lambda rows: unused.b(rows)
    assert names(unused) == ["a", "b", "c"]


@pytest.mark.parametrize("shape", [(1, 9, 24), (300, 24)])
def test_one_product_gives_every_layer_its_own_and_its_gradient(small, shape):
    model, rows, found = Reader(), torch.randn(shape, generator=torch.Generator().manual_seed(1)), []
    weights = torch.randn(*shape[:-1], 64, generator=torch.Generator().manual_seed(2))
    for on in (False, True):
        if on:
            assert len({one.together for one in pack(model, lambda: model(torch.ones(1, 24)))}) == 1
        found.append(through(lambda leaf: model(leaf * 1.5), rows, weights))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_pass_that_is_broken_off_leaves_the_next_one_right():
    model = Reader()
    together = Together([model.a, model.b, model.c])
    one, other = torch.randn(4, 24), torch.randn(4, 24)
    together.part(one, 0)
    for rows in (other, one):
        for number, layer in ((1, model.b), (0, model.a), (1, model.b), (2, model.c)):
            torch.testing.assert_close(together.part(rows, number), layer(rows), atol=1e-6, rtol=1e-6)


def test_nothing_is_held_when_every_layer_has_its_part():
    model, rows = Reader(), torch.randn(4, 24)
    together = Together([model.a, model.b])
    together.part(rows, 0)
    assert together._held.input is rows
    together.part(rows, 1)
    assert together._held.input is None
    assert not together._held.parts


def test_threads_do_not_take_each_others_parts():
    model, rows = Reader(), torch.randn(4, 24)
    together, seen = Together([model.a, model.b]), []
    together.part(rows, 0)
    other = threading.Thread(target=lambda: seen.append((together._held.input, together.part(rows, 1))))
    other.start()
    other.join()
    assert seen[0][0] is None
    torch.testing.assert_close(seen[0][1], model.b(rows), atol=1e-6, rtol=1e-6)
    assert together._held.input is rows
