import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from dlr_plugins.decoders import hf

from dlr_core.errors import ConfigError, ModelError

QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please.", "3 * 4 ="]
ANCHOR = " Let me see"
NEAR_TIE = 1e-4


def prompt_ids(decoder, question):
    """The prompt as Transformers itself makes it."""
    if not decoder.tokenizer.chat_template:
        return decoder.tokenizer(question + "\n")["input_ids"]
    message = [{"role": "user", "content": question}]
    return decoder.tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]


def generated(decoder, ids, limit):
    """Greedy tokens of Transformers' own loop, the end token included."""
    out = decoder.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=limit,
        pad_token_id=int(decoder.end_ids[0]),
    )
    return out[0, len(ids) :].tolist()


def tokens_of(done, row):
    return done.ids_NL[row][done.mask_NL[row].bool()].tolist()


def is_near_tie(decoder, ids, one, other):
    """Whether two continuations part where the two best logits are practically equal."""
    same = next(i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y)
    with torch.no_grad():
        logits = decoder.model(torch.tensor([[*ids, *one[:same]]])).logits[0, -1]
    return float((logits[one[same]] - logits[other[same]]).abs()) < NEAR_TIE


def prefill(decoder, questions=QUESTIONS):
    anchor = decoder.encode(ANCHOR)
    return decoder.prefill(questions, anchor[:-1], anchor[-1:], 2)


def test_prefill_of_a_batch_equals_prefill_of_each_question(tiny_decoder):
    cache = prefill(tiny_decoder)
    for row, question in enumerate(QUESTIONS):
        alone = prefill(tiny_decoder, [question])
        real = cache.mask_NS[row].bool()
        length = int(real.sum())
        assert length == alone.mask_NS.shape[1]
        torch.testing.assert_close(cache.states_NSH[row][real], alone.states_NSH[0], atol=2e-4, rtol=1e-3)
        for layer in range(3):
            key, value = cache.keys[layer][row][:, real], cache.values[layer][row][:, real]
            torch.testing.assert_close(key, alone.keys[layer][0], atol=2e-4, rtol=1e-3)
            torch.testing.assert_close(value, alone.values[layer][0], atol=2e-4, rtol=1e-3)
        assert cache.positions_NS[row][real].tolist() == list(range(length))


def test_what_questions_begin_with_is_run_once_for_all(tiny_decoder):
    wording = "Say the result of this sum: "
    questions = [wording + text for text in ("1 + 2", "20 + 3", "44 + 5")]
    alone = [prefill(tiny_decoder, [question]) for question in questions]
    before = tiny_decoder.usage.prefilled
    cache = prefill(tiny_decoder, questions)
    counted = tiny_decoder.usage.prefilled - before
    width, shared = cache.mask_NS.shape[1], len(prompt_ids(tiny_decoder, wording)) // 2
    assert counted < 3 * width - 2 * shared
    for row, single in enumerate(alone):
        real = cache.mask_NS[row].bool()
        torch.testing.assert_close(cache.states_NSH[row][real], single.states_NSH[0], atol=2e-4, rtol=1e-3)


def test_prefill_of_the_same_questions_gives_the_same_bits_whatever_came_between(tiny_decoder):
    first = prefill(tiny_decoder)
    prefill(tiny_decoder, ["What is 2 + 3?", "What is 2 - 3?"])
    for number in range(20):  # more beginnings than are kept
        prefill(tiny_decoder, [f"{number} {end}" for end in ("a", "b")])
    again = prefill(tiny_decoder)
    assert torch.equal(first.states_NSH, again.states_NSH)
    assert all(torch.equal(x, y) for x, y in zip(first.keys, again.keys, strict=True))


def test_prefill_holds_every_prompt_token_but_the_pending_ones(tiny_decoder):
    cache = prefill(tiny_decoder)
    for row, question in enumerate(QUESTIONS):
        text = prompt_ids(tiny_decoder, question) + tiny_decoder.encode(ANCHOR)
        assert int(cache.mask_NS[row].sum()) == len(text) - 1
        table = tiny_decoder.embedding_table()
        assert torch.equal(cache.pending_NPH[row], table[text[-1:]])


def test_question_states_leave_the_latent_positions_out(tiny_decoder):
    cache = prefill(tiny_decoder)
    states, mask = cache.question_states()
    assert states.shape[1] == mask.shape[1] == cache.mask_NS.shape[1] - 2


@pytest.mark.parametrize("anchor", ["", ANCHOR])
def test_greedy_decoding_equals_generate_on_the_same_ids(tiny_decoder, anchor):
    extra = tiny_decoder.encode(anchor)
    done = tiny_decoder.decode(tiny_decoder.prefill(QUESTIONS, extra[:-1], extra[-1:], 0), 12)
    for row, question in enumerate(QUESTIONS):
        ids = prompt_ids(tiny_decoder, question) + extra
        expected, got = generated(tiny_decoder, ids, 12), tokens_of(done, row)
        assert expected == got or is_near_tie(tiny_decoder, ids, expected, got)


def test_gpt2_decodes_as_generate_does(host, tiny_gpt2):
    decoder = host.create("decoder", "hf", {"model": str(tiny_gpt2)})
    extra = decoder.encode(ANCHOR)
    done = decoder.decode(decoder.prefill(QUESTIONS, extra[:-1], extra[-1:], 0), 8)
    for row, question in enumerate(QUESTIONS):
        ids = prompt_ids(decoder, question) + extra
        expected, got = generated(decoder, ids, 8), tokens_of(done, row)
        assert expected == got or is_near_tie(decoder, ids, expected, got)
    key = torch.randn(2, 3, 2, 16)
    assert torch.equal(decoder.rotate(key, torch.arange(6).view(2, 3)), key)


def test_batched_decoding_equals_one_by_one(tiny_decoder):
    cache = prefill(tiny_decoder)
    done = tiny_decoder.decode(cache, 12)
    assert len({tuple(tokens_of(done, row)) for row in range(4)}) > 1
    for row, question in enumerate(QUESTIONS):
        alone = tiny_decoder.decode(cache.select(torch.tensor([row])), 12)
        expected, got = tokens_of(alone, 0), tokens_of(done, row)
        ids = prompt_ids(tiny_decoder, question) + tiny_decoder.encode(ANCHOR)
        assert expected == got or is_near_tie(tiny_decoder, ids, expected, got)


def test_completions_stop_at_the_end_token_and_are_padded_with_it(tiny_decoder):
    questions = [f"How much is {number} + {number}?" for number in range(24)]
    done = tiny_decoder.decode(prefill(tiny_decoder, questions), 6)
    end = tiny_decoder.tokenizer.eos_token_id
    assert 0 < int(done.ended_N.sum()) < len(questions)
    for row in range(len(questions)):
        tokens = tokens_of(done, row)
        assert (end in tokens) == bool(done.ended_N[row])
        assert end not in tokens[:-1]
        assert len(tokens) == 6 or tokens[-1] == end
        assert set(done.ids_NL[row][len(tokens) :].tolist()) <= {end}
        assert done.texts[row] == tiny_decoder.tokenizer.decode(tokens, skip_special_tokens=True)


def test_decoding_leaves_the_cache_as_it_was(tiny_decoder):
    cache = prefill(tiny_decoder)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values, cache.mask_NS, cache.pending_NPH)]
    first = tiny_decoder.decode(cache, 8)
    second = tiny_decoder.decode(cache, 8)
    after = [*cache.keys, *cache.values, cache.mask_NS, cache.pending_NPH]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert torch.equal(first.ids_NL, second.ids_NL)


def test_sampling_repeats_with_equal_generators_only(tiny_decoder):
    cache = prefill(tiny_decoder)

    def sample(seed):
        generators = [np.random.default_rng((seed, row)) for row in range(4)]
        return tiny_decoder.decode(cache, 8, 1.0, generators).texts

    assert sample(0) == sample(0)
    assert sample(0) != sample(1)


def test_a_row_is_sampled_from_its_own_generator(tiny_decoder):
    cache = prefill(tiny_decoder)
    together = tiny_decoder.decode(cache, 8, 1.0, [np.random.default_rng(row) for row in range(4)])
    alone = tiny_decoder.decode(cache.select(torch.tensor([2])), 8, 1.0, [np.random.default_rng(2)])
    assert alone.texts[0] == together.texts[2]


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_sampled_frequencies_follow_the_softmax(tiny_decoder, temperature):
    count = 600
    cache = prefill(tiny_decoder).select(torch.zeros(count, dtype=torch.long))
    generators = [np.random.default_rng(row) for row in range(count)]
    drawn = tiny_decoder.decode(cache, 1, temperature, generators).ids_NL[:, 0]
    ids = prompt_ids(tiny_decoder, QUESTIONS[0]) + tiny_decoder.encode(ANCHOR)
    with torch.no_grad():
        chance = (tiny_decoder.model(torch.tensor([ids])).logits[0, -1] / temperature).softmax(-1)
    for token in chance.topk(3).indices:
        p = float(chance[token])
        seen = float((drawn == token).float().mean())
        assert abs(seen - p) < 4 * (p * (1 - p) / count) ** 0.5 + 1e-3


def test_sampling_needs_one_generator_per_row(tiny_decoder):
    with pytest.raises(ConfigError, match="one generator per row: expected 4"):
        tiny_decoder.decode(prefill(tiny_decoder), 2, 1.0, [np.random.default_rng()])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_prob_is_the_sum_of_log_softmax(tiny_decoder, temperature):
    texts = ["12", "7 eggs", "", "because"]
    ids_NL, mask_NL = tiny_decoder.encode_targets(texts)
    got = tiny_decoder.log_prob(prefill(tiny_decoder), ids_NL, mask_NL, temperature)
    end = tiny_decoder.tokenizer.eos_token_id
    for row, (question, text) in enumerate(zip(QUESTIONS, texts, strict=True)):
        prompt = prompt_ids(tiny_decoder, question) + tiny_decoder.encode(ANCHOR)
        target = [*tiny_decoder.encode(text), end]
        assert ids_NL[row][mask_NL[row].bool()].tolist() == target
        total = 0.0
        for number, token in enumerate(target):
            with torch.no_grad():
                logits = tiny_decoder.model(torch.tensor([prompt + target[:number]])).logits[0, -1]
            total += float((logits / temperature).log_softmax(-1)[token])
        assert float(got[row]) == pytest.approx(total, abs=2e-3)


def test_log_prob_is_differentiable_in_the_prompt_and_not_in_the_weights(tiny_decoder):
    cache = prefill(tiny_decoder)
    keys = tuple(key.clone().requires_grad_() for key in cache.keys)
    pending = cache.pending_NPH.clone().requires_grad_()
    ids_NL, mask_NL = tiny_decoder.encode_targets(["12"] * 4)
    tiny_decoder.log_prob(replace(cache, keys=keys, pending_NPH=pending), ids_NL, mask_NL).sum().backward()
    assert all(float(tensor.grad.abs().sum()) > 0 for tensor in (*keys, pending))
    assert all(not weight.requires_grad and weight.grad is None for weight in tiny_decoder.model.parameters())


def test_extend_gives_the_states_that_prefill_gives_and_leaves_the_cache(tiny_decoder):
    anchor = tiny_decoder.encode(ANCHOR)
    cache = tiny_decoder.prefill(QUESTIONS, anchor[:4], anchor[4:], 0)
    longer = tiny_decoder.prefill(QUESTIONS, anchor, anchor[:1], 0)
    width = cache.keys[0].shape[2]
    states = tiny_decoder.extend(cache, cache.pending_NPH)
    torch.testing.assert_close(states, longer.states_NSH[:, -len(anchor[4:]) :], atol=2e-4, rtol=1e-3)
    assert cache.keys[0].shape[2] == width


def test_rotating_back_undoes_rotating(tiny_decoder):
    keys = torch.randn(3, 5, 2, 16, generator=torch.Generator().manual_seed(0))
    positions = torch.randint(0, 500, (3, 5), generator=torch.Generator().manual_seed(1))
    turned = tiny_decoder.rotate(keys, positions)
    assert float((turned - keys).abs().max()) > 0.1
    torch.testing.assert_close(tiny_decoder.rotate(turned, -positions), keys, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(turned.norm(dim=-1), keys.norm(dim=-1), atol=1e-4, rtol=1e-4)


def test_unrotated_first_layer_keys_depend_on_the_token_alone(tiny_decoder):
    cache = tiny_decoder.prefill(["aXbbbbbbXcX", "X"], [], [], 0)
    plain = tiny_decoder.rotate(cache.keys[0].transpose(1, 2), -cache.positions_NS)
    token = tiny_decoder.encode("X")[0]
    found = []
    for row, question in enumerate(["aXbbbbbbXcX", "X"]):
        ids = torch.tensor(prompt_ids(tiny_decoder, question)[:-1])
        found.append(plain[row][cache.mask_NS[row].bool()][ids == token])
    keys = torch.cat(found)
    assert len(keys) == 4
    torch.testing.assert_close(keys, keys[:1].expand_as(keys), atol=2e-4, rtol=1e-3)


def test_first_values_are_what_the_first_layer_caches(tiny_decoder):
    ids = prompt_ids(tiny_decoder, "Hi")[:-1]
    cache = tiny_decoder.prefill(["Hi"], [], [], 0)
    expected = cache.values[0][0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(tiny_decoder.first_values(torch.tensor(ids)), expected, atol=1e-4, rtol=1e-3)


def test_states_lie_within_the_bound(tiny_decoder):
    cache = prefill(tiny_decoder)
    bound = tiny_decoder.state_bound()
    assert bool(torch.isfinite(bound).all())
    assert bool((cache.states_NSH[cache.mask_NS.bool()].abs() <= bound).all())
    root = tiny_decoder.hidden_size**0.5
    weight = tiny_decoder.body.norm.weight.abs()
    torch.testing.assert_close(bound, root * weight, rtol=0.05, atol=0.01)


def test_fingerprint_changes_with_any_weight_and_comes_back(host, tiny_model, tiny_decoder):
    decoder = host.create("decoder", "hf", {"model": str(tiny_model)})
    before = decoder.fingerprint()
    assert before == tiny_decoder.fingerprint()
    assert len(before) == 64
    for weight in (decoder.model.lm_head.weight, decoder.model.model.norm.weight):
        flat = weight.data.view(-1)
        old = float(flat[3])
        flat[3] = float(np.nextafter(np.float32(old), np.float32(9)))
        assert decoder.fingerprint() != before
        flat[3] = old
        assert decoder.fingerprint() == before


def test_loading_changes_no_weight_and_freezes_all(host, tiny_model, other_model):
    tiny, other = (host.create("decoder", "hf", {"model": str(path)}) for path in (tiny_model, other_model))
    assert tiny.fingerprint() != other.fingerprint()
    assert not any(weight.requires_grad for weight in tiny.model.parameters())
    assert not tiny.model.training


def refusal(host, model, **options):
    with pytest.raises(ModelError) as caught:
        host.create("decoder", "hf", {"model": str(model), **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_with_pickled_weights_only_is_refused(host, tiny_model, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "pytorch_model.bin")
    assert str(folder) in refusal(host, folder)


def test_a_truncated_weights_file_is_refused_with_one_line(host, tiny_model, tmp_path):
    folder = tmp_path / "truncated"
    shutil.copytree(tiny_model, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert str(folder) in refusal(host, folder)


def test_a_missing_folder_is_named(host, tmp_path):
    assert refusal(host, tmp_path / "nowhere").startswith(f"no main model at '{tmp_path}/nowhere'")
    assert "no GGUF file at" in refusal(host, tmp_path / "nowhere.gguf")


def test_a_folder_without_a_model_is_named(host, tmp_path):
    assert refusal(host, tmp_path) == f"{tmp_path} is not a model folder: it has no config.json"


def test_an_unknown_dtype_or_device_is_a_config_error(host, tiny_model):
    with pytest.raises(ConfigError, match=r"decoder\.dtype: expected auto, .* got 'float8'"):
        host.create("decoder", "hf", {"model": str(tiny_model), "dtype": "float8"})
    with pytest.raises(ConfigError, match=r"decoder\.device: cannot use 'toaster'"):
        host.create("decoder", "hf", {"model": str(tiny_model), "device": "toaster"})


@pytest.mark.parametrize("model", ["tiny_model", "tiny_gpt2"])
def test_logits_of_states_are_those_of_the_model_and_are_counted(host, model, request):
    decoder = host.create("decoder", "hf", {"model": str(request.getfixturevalue(model))})
    cache = decoder.prefill(QUESTIONS[:1], decoder.encode("abc"), decoder.encode("d"), 0)
    before = decoder.usage.logits
    with torch.no_grad():
        got = decoder.logits(cache.states_NSH)
        ids = torch.tensor([prompt_ids(decoder, QUESTIONS[0]) + decoder.encode("abc")])
        torch.testing.assert_close(got, decoder.model(ids).logits, atol=2e-3, rtol=1e-3)
    assert decoder.usage.logits - before == got.shape[1]
    states = cache.states_NSH.clone().requires_grad_()
    decoder.logits(states).sum().backward()
    assert bool(states.grad.any())
    assert decoder.usage.logits - before == 3 * got.shape[1]


def test_what_a_pass_frees_is_kept_for_the_next_once_a_model_is_here(tiny_model, monkeypatch):
    calls = []
    monkeypatch.setattr(hf, "pack", lambda *_: calls.append("packed") or [])
    monkeypatch.setattr(hf, "keep_free", lambda: calls.append("kept"))
    hf.HFDecoder(hf.HFDecoder.Options(model=str(tiny_model), device="cpu"))
    assert calls == ["packed", "kept"]  # loading, of larger blocks, is over


def test_texts_say_what_the_mask_leaves(tiny_decoder):
    ids_NL = torch.tensor([tiny_decoder.encode("ab")[:1] * 3, tiny_decoder.encode("cd")[:1] * 3])
    first, second = (tiny_decoder.token(int(row[0])) for row in ids_NL)
    assert tiny_decoder.texts(ids_NL, torch.tensor([[1.0, 0, 0], [1.0, 1.0, 0]])) == [first, second * 2]
