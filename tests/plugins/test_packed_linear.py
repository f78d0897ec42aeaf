"""Frozen weights in oneDNN's order: the same model, faster."""

import pytest
import torch
from dlr_plugins.decoders import packed_linear
from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.decoders.packed_linear import PackedLinear, pack
from torch import nn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please.", "3 * 4 ="]


@pytest.fixture
def small(monkeypatch):
    """Even the smallest layers are packed."""
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", 0)


def stack(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias), nn.SiLU(), nn.Linear(40, 16, bias)).requires_grad_(False)


@pytest.mark.parametrize("shape", [(5, 24), (1, 70, 24), (2, 3, 24), (0, 24), (300, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_layers_and_their_gradients_are_the_layers(small, bias, shape):
    model, rows = stack(bias), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(*shape[:-1], 16, generator=torch.Generator().manual_seed(2))
    found = []
    for on in (False, True):
        if on:
            assert len(pack(model)) == 2
        leaf = rows.clone().requires_grad_()
        out = model(leaf)
        (out * weights).sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(model(rows), out.detach(), atol=1e-6, rtol=1e-6)
        found.append((out.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert isinstance(model[0].forward, PackedLinear)
    assert all(weight.grad is None for weight in model.parameters())


def test_products_of_few_different_numbers_of_rows_are_asked_for_and_none_is_much_larger():
    asked = {count: packed_linear.rounded(count) for count in range(1, 2000)}
    assert all(count <= rows < count + max(8, min(32, count // 8)) for count, rows in asked.items())
    assert all(asked[count] == count for count in range(1, 9))
    assert len({asked[count] for count in range(1, 257)}) == 39
    assert len(set(asked.values())) < 100


def test_packing_can_be_undone_and_leaves_the_weights_alone(small):
    model = stack()
    names, own = list(model.state_dict()), [id(weight) for weight in model.parameters()]
    for one in pack(model):
        one.use(False)
        one.use(False)
    assert list(model.state_dict()) == names
    assert [id(weight) for weight in model.parameters()] == own
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize(("least", "most"), [(1 << 20, 0.1), (0, 0.0)])
def test_what_is_too_small_or_too_large_is_left_alone(monkeypatch, least, most):
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", least)
    monkeypatch.setattr(packed_linear, "MOST_OF_MEMORY", most)
    assert pack(stack()) == []


def test_other_dtypes_are_left_alone(small):
    assert pack(stack().to(torch.bfloat16)) == []


def test_a_packed_model_is_the_same_model(small, host, tiny_model, tiny_decoder):
    packed = host.create("decoder", "hf", {"model": str(tiny_model)})
    assert packed.packed
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
