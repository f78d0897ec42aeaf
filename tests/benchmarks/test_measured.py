"""Every short benchmark, on a tiny model: it measures what it says, and leaves an entry and a picture."""

import json

import decode
import dlr_envs  # noqa: F401
import gymnasium
import machine
import numpy as np
import overhead
import pytest
import roofline
import sb3_adapter
import start_up
import torch
from dlr_plugins.decoders import packed_linear

from dlr_core.errors import ConfigError


def entry(folder, name):
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((folder / "results.json").read_text())[name]
    assert found["low"] <= found["ratio"] <= found["high"]
    return found


@pytest.fixture
def engine(tiny_model):
    return gymnasium.make_vec("dlr/ChainSum-v0", num_envs=1, decoder=str(tiny_model)).unwrapped.engine


def test_the_environment_writes_what_generate_writes_and_as_much(tiny_model, tmp_path):
    decode.main([
        "--main-model", str(tiny_model), "--out", str(tmp_path), "--repeats", "2",
        "--chains", "1", "8", "--prompts", "70", "200", "--tokens", "8",
    ])  # fmt: skip
    found = entry(tmp_path, "decode_k8_p200")
    assert found["n"] == 2
    cells = found["measured"]["cells"]
    assert [(cell["chains"], cell["prompt"]) for cell in cells] == [(8, 200), (1, 70), (1, 200), (8, 70)]
    assert all(cell["same_completions"] == 1.0 for cell in cells)
    assert found["ratio"] == cells[0]["ratio"]


def test_a_cell_that_does_not_stand_for_all_writes_nothing(tiny_model, tmp_path, capsys):
    decode.main([
        "--main-model", str(tiny_model), "--out", str(tmp_path), "--repeats", "1",
        "--chains", "2", "--prompts", "70", "--tokens", "3",
    ])  # fmt: skip
    assert "nothing written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tokens", [60, 61, 143, 400])
def test_a_prompt_has_exactly_as_many_tokens_as_it_should_and_no_two_are_alike(engine, tokens):
    beside = len(engine.space.anchor_ids) + len(engine.space.pending_ids)
    questions = decode.LongQuestions(engine.decoder, beside, tokens)
    items = [questions.item("train", number) for number in (0, 9, 10, 731)]
    assert {len(engine.decoder.prompt_ids(item.question)) + beside for item in items} == {tokens}
    assert len({item.question for item in items}) == 4


def test_a_prompt_shorter_than_its_template_is_refused(engine):
    with pytest.raises(ConfigError, match="too short"):
        decode.LongQuestions(engine.decoder, 9, 12).item("train", 0)


def test_completions_that_differ_are_counted(engine):
    with decode.endless(engine.decoder):
        cell = decode.Cell(engine, 4, 80, 5, 0)
        for side in cell.sides:
            side(0)
        assert cell.same() == 1.0
        cell.written["packed"][0][1, 2] += 1
        assert cell.same() == 0.75
        cell.written["plain"][0][3, 0] += 1
        assert cell.same() == 0.5
        cell.written["plain"][0] = cell.written["plain"][0][:, :4]
        with pytest.raises(RuntimeError, match="expected 5 tokens"):
            cell.same()


def test_generate_has_the_models_own_weights_and_the_packed_copies_are_put_back(tiny_model, monkeypatch):
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", 0)
    env = {"name": "hf", "model": str(tiny_model), "device": "cpu"}
    engine = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=1, decoder=env).unwrapped.engine
    assert engine.decoder.packed
    multiplied = []
    for together in {layer.together for layer in engine.decoder.packed}:
        monkeypatch.setattr(together, "product", lambda rows, own=together.product: multiplied.append(1) or own(rows))
    with decode.endless(engine.decoder):
        cell = decode.Cell(engine, 2, 80, 2, 0)
        cell.plain(0)
        assert not multiplied
        cell.packed(0)
        assert multiplied


def test_the_end_token_is_given_back(engine):
    before = engine.decoder.end_ids.clone()
    with decode.endless(engine.decoder) as end:
        assert end not in before.tolist()
    assert torch.equal(engine.decoder.end_ids, before)


def test_the_roof_has_every_matrix_and_every_cached_number_once(engine):
    decoder = engine.decoder
    roof = roofline.Roof(decoder, 7, 10.0)
    per_token = decoder.flops_per_token
    assert roof.flops == 7 * (per_token.body + per_token.head)
    cache = engine.prefill(["one", "another one"])
    held = sum(key.numel() + value.numel() for key, value in zip(cache.keys, cache.values, strict=True))
    rows, positions = cache.mask_NS.shape
    assert roofline.Roof(decoder, rows, positions).cache_bytes == 4 * held


def test_the_roof_has_what_all_prompts_begin_with_once(engine):
    prompts = engine.prefill([f"{number} + 1 =" for number in range(6)])
    ready = engine.inject(prompts, torch.zeros(6, engine.space.num_latents, engine.space.latent_dim))
    fixed = ready.trunk.fixed
    parts = [ready, ready.trunk, ready.trunk.beginning]
    held = sum(tensor.numel() for part in parts for tensor in (*part.keys, *part.values))
    assert fixed > 3
    roof = roofline.Roof(engine.decoder, 6, ready.mask_NS.shape[1] - fixed, fixed)
    assert roof.cache_bytes == 4 * held


def test_the_roof_of_a_packed_model_is_of_real_weights_multiplied_both_ways(tiny_model, monkeypatch):
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", 0)
    decoder = {"name": "hf", "model": str(tiny_model), "device": "cpu"}
    packed = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=1, decoder=decoder).unwrapped.engine.decoder
    plain = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=1, decoder={**decoder, "packed": False}).unwrapped.engine
    roof = roofline.Roof(packed, 7, 10.0)
    for one, other in zip(roof.weights, roofline.matrices(plain.decoder), strict=True):
        assert torch.equal(one, other)
    linears = [part for part in packed.model.modules() if isinstance(part, torch.nn.Linear)]
    assert sum(sum(one.sizes) for one in roof.packed) == sum(part.out_features for part in linears)
    done = []
    monkeypatch.setattr(roof, "_plain", lambda: done.append("plain"))
    monkeypatch.setattr(roof, "_from_packed", lambda: done.append("packed"))
    roof.products()
    assert set(done) == {"plain", "packed"}


def test_the_roofline_is_written(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MEMORY", 2**20)
    roofline.main(
        ["--main-model", str(tiny_model), "--out", str(tmp_path), "--repeats", "2", "--rows", "8", "--tokens", "4"]
    )
    found = entry(tmp_path, "decode_roofline_b64")
    assert found["ratio"] > 0
    assert found["measured"]["rows"] == 8


def test_the_models_share_of_a_step_is_less_than_the_decoders_and_both_less_than_all(tiny_model, tmp_path):
    decoder = {"name": "hf", "model": str(tiny_model), "device": "cpu"}  # hooks stay on: not the one others share
    made = gymnasium.make_vec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gymnasium, "make_vec", lambda *args, **more: made(*args, **{**more, "decoder": decoder}))
        overhead.main(["--out", str(tmp_path), "--repeats", "3", "--envs", "4", "--group", "2"])
    measured = entry(tmp_path, "env_overhead")["measured"]
    assert len(measured["forward_share"]) == 3
    for forward, calls in zip(measured["forward_share"], measured["decoder_share"], strict=True):
        assert 0 < forward < calls < 1


def test_nested_calls_are_timed_once_and_a_failing_one_is_over():
    watch = overhead.Stopwatch()

    def fail():
        raise ValueError("lost")

    inner = watch.around(lambda: None)
    watch.around(lambda: (inner(), inner()))()
    once = watch.seconds
    assert once > 0
    with pytest.raises(ValueError, match="lost"):
        watch.around(fail)()
    assert watch._depth == 0


def test_the_adapter_and_dummy_environments_answer_alike(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(sb3_adapter, "NAMED", 3)
    sb3_adapter.main(["--main-model", str(tiny_model), "--out", str(tmp_path), "--repeats", "2", "--sizes", "2", "3"])
    found = entry(tmp_path, "sb3_adapter_n32")
    rows = found["measured"]["sizes"]
    assert [row["envs"] for row in rows] == [2, 3]
    assert all(row["same_completions"] == 1.0 for row in rows)
    assert found["ratio"] == rows[1]["ratio"]
    assert all(len(row["adapter_seconds"]) == len(row["dummy_seconds"]) == 2 for row in rows)


def test_what_is_started_is_timed_and_what_fails_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(
        start_up, "commands",
        lambda model: {start_up.LIST: ["sh", "-c", "exit 0"], start_up.IMPORT: ["sh", "-c", "sleep 0.02"]},
    )  # fmt: skip
    start_up.main(["--out", str(tmp_path), "--repeats", "3"])
    found = entry(tmp_path, "start_up")
    assert found["ratio"] > 1
    assert {name: len(values) for name, values in found["measured"]["seconds"].items()} == {
        start_up.LIST: 3, start_up.IMPORT: 3,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="broken pipes"):
        start_up.seconds(["sh", "-c", "echo broken pipes >&2; exit 3"])


def test_the_programs_first_step_is_that_of_the_environment(tiny_model):
    started = start_up.commands(str(tiny_model))
    assert set(started) >= {"dlr --help", start_up.LIST, start_up.IMPORT}
    scope: dict[str, object] = {}
    exec(started["first step of an environment"][2], scope)
    assert np.all(scope["env"].unwrapped.engine.actions_NtD.numpy() == 0)  # type: ignore[attr-defined]
