import logging

import pytest
import torch
from accelerate import dispatch_model
from dlr_plugins.decoders import hf
from dlr_plugins.decoders.token_log_prob import token_log_prob
from elsewhere import PLACE, Elsewhere, Two

from dlr_core.assignments import merge, parse_assignment
from dlr_core.config import resolve
from dlr_core.errors import ConfigError, PluginError
from dlr_core.frozen import Frozen
from dlr_core.pipeline import build_trainer
from dlr_core.stacking import stack

QUESTIONS = ["What is 2 + 2?", "Hi"]
PARTS = ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm")
END = ("model.layers.1", "model.layers.2", "model.norm")
BEGINNING = ("model.rotary_emb", "model.layers.0", "lm_head")
"""Two ways to have parts of the tiny model elsewhere."""


@pytest.fixture(params=["cpu=200KB", "cpu=320KB"])
def offloaded(request, host, tiny_model, tmp_path):
    """The tiny model with all layers, or with two of three, on the disk."""
    options = {"device_map": "auto", "max_memory": request.param, "offload_folder": str(tmp_path / "off")}
    return host.create("decoder", "hf", {"model": str(tiny_model), **options})


@pytest.fixture(params=[END, BEGINNING], ids=["end", "beginning"])
def on_two(request, host, tiny_model, monkeypatch):
    """Makes decoders of the tiny model on two devices, for use inside ``Two``."""

    def spread(name, *rest):
        model, tokenizer = hf_load(name, *rest)
        model.eval().requires_grad_(False)
        placed = dict.fromkeys((*PARTS, "lm_head"), "cpu") | dict.fromkeys(request.param, PLACE)
        dispatch_model(model, placed, main_device="cpu", skip_keys="past_key_values")
        return model, tokenizer

    hf_load = hf.load

    def make(backend="hf"):
        monkeypatch.setattr(hf, "load", spread)
        return host.create("decoder", backend, {"model": str(tiny_model)})

    return make


def follow(host, decoder, space="kv", **options):
    """Completions of chains of two questions, their likelihoods, and gradients in latents and chart."""
    made = host.create("space", space, {"num_latents": 2, "chart": "joint", **options}, decoder=decoder)
    made.calibrate(QUESTIONS)
    cache = decoder.prefill(QUESTIONS, made.anchor_ids, made.pending_ids, 2)
    rows_N = torch.tensor([0, 0, 1, 1, 0])
    prompts = cache.share(rows_N) if decoder.shares_prompts and getattr(made, "shares_prompts", False) else None
    wide = torch.linspace(-0.5, 0.5, 10 * made.latent_dim).view(5, 2, -1).requires_grad_()
    ready = made.inject(cache.select(rows_N) if prompts is None else prompts, wide)
    done = decoder.decode(ready, 8, entropy=True)
    log_prob_N = decoder.log_prob(ready, done.ids_NL, done.mask_NL)
    log_prob_N.sum().backward()
    return done.texts, done.entropy_N, log_prob_N.detach(), wide.grad, *(each.grad for each in made.trainable())


def require_same(found, expected):
    assert found[0] == expected[0]
    assert any(found[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert float(other.norm()) > 0
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_model_partly_on_the_disk_completes_scores_and_teaches_as_the_whole_does(host, offloaded, tiny_decoder):
    assert offloaded.spread
    assert any(weight.is_meta for weight in offloaded.model.parameters())
    assert offloaded.shares_prompts
    require_same(follow(host, offloaded), follow(host, tiny_decoder))


def test_the_digest_of_a_model_is_the_same_wherever_its_weights_are_kept(offloaded, tiny_decoder, host, other_model):
    assert offloaded.fingerprint() == tiny_decoder.fingerprint()
    assert offloaded.fingerprint() != host.create("decoder", "hf", {"model": str(other_model)}).fingerprint()


def test_what_is_kept_on_the_disk_is_said_in_one_line(host, tiny_model, tmp_path, caplog):
    options = {"device_map": "auto", "max_memory": "cpu=320KB", "offload_folder": str(tmp_path / "off")}
    with caplog.at_level(logging.WARNING):
        host.create("decoder", "hf", {"model": str(tiny_model), **options})
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("LlamaForCausalLM: 0.313 MB of its weights are kept on cpu and disk: every pass")


def test_a_weight_on_the_disk_cannot_be_made_trainable_or_offered_unseen(offloaded):
    frozen = Frozen(offloaded)
    offloaded.prefill(QUESTIONS, [], [], 0)
    assert frozen.touched() is None
    weight = offloaded.model.get_parameter("model.layers.2.mlp.up_proj.weight")
    with pytest.raises(PluginError, match=r"an assistant offers .*up_proj"):
        frozen.refuse_parameters([weight], "an assistant")
    weight.requires_grad_()
    assert frozen.touched() == "made model.layers.2.mlp.up_proj.weight trainable"


def test_with_room_for_all_of_it_a_model_is_on_one_device_and_nothing_is_spread(host, tiny_model, tiny_decoder):
    whole = host.create(
        "decoder", "hf", {"model": str(tiny_model), "device_map": "auto", "max_memory": {"cpu": "1GiB"}}
    )
    assert not whole.spread
    require_same(follow(host, whole), follow(host, tiny_decoder))


@pytest.mark.parametrize("space", ["kv", "input", "steer", "coconut", "vocab"])
def test_latents_reach_layers_on_another_device_in_every_space(host, on_two, tiny_decoder, space):
    deep = {"last": 1.0} if space == "steer" else {}
    expected = follow(host, tiny_decoder, space, **deep)
    with Two():
        decoder = on_two()
        assert decoder.spread
        assert decoder.shares_prompts
        assert {key.device for key in decoder.prefill(["Hi"], [], [], 0).keys} == {torch.device("cpu"), PLACE}
        require_same(follow(host, decoder, space, **deep), expected)


def test_chains_that_copy_their_prompts_do_so_on_both_devices(host, on_two, tiny_decoder):
    expected = follow(host, tiny_decoder)
    with Two():
        decoder = on_two()
        decoder.shares_prompts = False
        require_same(follow(host, decoder), expected)


def test_drafted_tokens_are_verified_across_devices(host, on_two, tiny_model):
    expected = follow(host, host.create("decoder", "lookup", {"model": str(tiny_model)}))
    with Two():
        require_same(follow(host, on_two("lookup")), expected)


def test_remembered_prompts_of_both_devices_are_stacked_chosen_and_made_whole(on_two, tiny_decoder):
    def remembered(decoder):
        cache = stack([decoder.prefill([question], [5, 6], [7], 2) for question in QUESTIONS])
        whole = cache.share(torch.tensor([1, 0, 1])).whole()
        done = decoder.decode(whole, 6)
        keys = decoder.rotate(torch.ones(3, 2, 2, 16), whole.positions_NS[:, :2])
        values, logits = decoder.first_values(torch.tensor([3, 4])), decoder.logits(whole.states_NSH)
        return done.texts, values, decoder.state_bound(), whole.states_NSH, keys, logits

    expected = remembered(tiny_decoder)
    with Two():
        require_same(remembered(on_two()), expected)


def test_the_output_table_may_lie_on_another_device_than_the_states():
    torch.manual_seed(0)
    head, states_MH, ids_M = torch.nn.Linear(8, 11), torch.randn(5, 8), torch.tensor([1, 2, 3, 4, 10])
    head.requires_grad_(False)
    here, there = states_MH.clone().requires_grad_(), states_MH.clone().requires_grad_()
    expected_M = token_log_prob(here, head, ids_M, 0.7)
    expected_M.sum().backward()
    with Two():
        for name in ("weight", "bias"):
            setattr(head, name, torch.nn.Parameter(Elsewhere(getattr(head, name).data), requires_grad=False))
        head.register_forward_pre_hook(lambda _, given: given[0].to(PLACE))
        found_M = token_log_prob(there, head, ids_M, 0.7)
        found_M.sum().backward()
        torch.testing.assert_close(found_M, expected_M)
        torch.testing.assert_close(there.grad, here.grad)


def test_a_run_on_a_model_partly_on_the_disk_is_the_run_on_the_whole(host, tiny_model, tmp_path):
    def steps(*more):
        values = {"decoder": {"model": str(tiny_model), "max_new_tokens": 5}, "task": {"pool": 40}, "loggers": []}
        values["batch"] = {"questions": 2, "samples": 3}
        values["replay"] = {"search": 3, "chains": 3}
        for text in more:
            merge(values, *parse_assignment(text))
        trainer = build_trainer(resolve(values, host), host)
        found = [trainer.step() for _ in range(3)]
        return trainer.env.engine.decoder, [
            [row[key] for key in ("reward", "grad_norm", "search_tokens")] for row in found
        ]

    whole, expected = steps()
    folder = f"decoder.offload_folder={tmp_path / 'off'}"
    parted, found = steps("decoder.device_map=auto", "decoder.max_memory=cpu=320KB", folder)
    assert parted.spread
    assert not whole.spread
    assert parted.fingerprint() == whole.fingerprint()
    assert found == [pytest.approx(row, rel=1e-3, abs=1e-5) for row in expected]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_memory": "cpu=1GiB"}, "decoder.max_memory: does nothing without decoder.device_map=auto"),
        ({"offload_folder": "x"}, "decoder.offload_folder: does nothing without decoder.device_map=auto"),
        (
            {"device_map": "auto", "device": "cpu"},
            "decoder.device: expected auto with decoder.device_map=auto, got 'cpu'",
        ),
        ({"device_map": "auto", "max_memory": "99=1GiB"}, "decoder.max_memory: device 99, but there are"),
        ({"device_map": "auto", "max_memory": "tpu=1GiB"}, "expected a device's number, cpu or mps before ="),
        ({"device_map": "auto", "max_memory": "cpu=lots"}, "expected a size such as 20GiB for cpu, not 'lots'"),
        ({"device_map": "auto", "max_memory": "cpu"}, "expected a size such as 20GiB for cpu, not ''"),
        ({"device_map": "half"}, "Input should be 'none', 'auto'"),
    ],
)
def test_settings_that_cannot_place_a_model_are_refused_in_one_line(host, tiny_model, options, said):
    with pytest.raises(ConfigError) as caught:
        host.create("decoder", "hf", {"model": str(tiny_model), **options})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_input_embeddings_must_fit_a_device(host, tiny_model, tmp_path):
    options = {"device_map": "auto", "max_memory": "cpu=10KB", "offload_folder": str(tmp_path / "off")}
    with pytest.raises(ConfigError, match="no device has room for the input embeddings"):
        host.create("decoder", "hf", {"model": str(tiny_model), **options})


def test_a_trained_prompt_is_not_put_before_a_spread_model(host, tiny_decoder):
    pytest.importorskip("peft")
    spread = type("Spread", (), {"model": tiny_decoder.model, "spread": True})()
    with pytest.raises(ConfigError, match="needs the main model on one device"):
        host.create("baseline", "prefix", {}, decoder=spread)
