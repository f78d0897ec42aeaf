"""PEFT's soft prompts as baselines: what our batched code computes is what PEFT computes."""

import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from dlr_core.baselines import check_installed
from dlr_core.errors import ConfigError, RunFolderError

peft = pytest.importorskip("peft")
METHODS = pytest.mark.parametrize("method", ["prefix", "prompt"])
QUESTIONS = ["How much is 3 + 4?", "And now, please, how much is 33 + 41?", "1?"]
ANSWERS = [" 7", " 74", " 1"]
PROMPT = " Result:"


@pytest.fixture
def made(host, tiny_decoder):
    """Builds a baseline with four virtual tokens, not at its text's own values."""

    def build(method, **options):
        torch.manual_seed(0)
        baseline = host.create("baseline", method, {"num_virtual_tokens": 4, **options}, decoder=tiny_decoder)
        with torch.no_grad():
            weight = baseline.trainable()[0]
            weight += 0.3 * weight.std() * torch.randn_like(weight)
        return baseline

    return build


@contextmanager
def renamed_cache():
    """PEFT 0.21 hands the cache over by its old name, of which Transformers 5.24 warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`past_key_values`", FutureWarning)
        yield


@METHODS
def test_log_prob_is_that_of_pefts_own_forward_pass(made, tiny_decoder, method):
    baseline = made(method)
    ours = baseline.log_prob(QUESTIONS, PROMPT, ANSWERS)
    for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        given = tiny_decoder.prompt_ids(question) + tiny_decoder.encode(PROMPT)
        wanted = [*tiny_decoder.encode(answer), int(tiny_decoder.end_ids[0])]
        ids = torch.tensor([given + wanted])
        labels = torch.tensor([[-100] * len(given) + wanted])
        with renamed_cache():
            out = baseline.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
        assert float(ours[number].detach()) == pytest.approx(-float(out.loss.detach()) * len(wanted), rel=1e-4)


@METHODS
def test_greedy_completions_are_those_of_pefts_own_forward_pass(made, tiny_decoder, method):
    """Token by token and without a cache: PEFT 0.21 cannot generate on the Transformers that renamed it."""
    baseline = made(method)
    ids = tiny_decoder.encode(PROMPT)
    cache = baseline.adapted().prefill(QUESTIONS, ids[:-1], ids[-1:], 0)
    ours = tiny_decoder.decode(cache, 12)
    texts = set()
    for question, row, mask in zip(QUESTIONS, ours.ids_NL, ours.mask_NL, strict=True):
        written = tiny_decoder.prompt_ids(question) + ids
        given = len(written)
        while len(written) < given + 12 and written[-1] not in tiny_decoder.end_ids:
            whole = torch.tensor([written])
            with renamed_cache(), torch.no_grad():
                logits = baseline.model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits
            written.append(int(logits[0, -1].argmax()))
        assert row[mask.bool()].tolist() == written[given:]
        texts.add(tuple(row.tolist()))
    assert len(texts) > 1


def test_virtual_tokens_that_begin_as_text_are_that_text(host, tiny_decoder):
    """Keys and values in every layer, input embeddings, and the tokens themselves are one prompt at first."""
    found = {}
    for method in ("prefix", "prompt"):
        baseline = host.create("baseline", method, {"num_virtual_tokens": 5}, decoder=tiny_decoder)
        found[method] = baseline.log_prob(QUESTIONS[:1], PROMPT, ANSWERS[:1]).detach()
    text = tiny_decoder.prompt_ids("a")[:5]
    rows = text + tiny_decoder.prompt_ids(QUESTIONS[0]) + tiny_decoder.encode(PROMPT)
    wanted = [*tiny_decoder.encode(ANSWERS[0]), int(tiny_decoder.end_ids[0])]
    with torch.no_grad():
        logits = tiny_decoder.model(input_ids=torch.tensor([rows + wanted])).logits[0, len(rows) - 1 : -1]
    plain = logits.log_softmax(-1)[torch.arange(len(wanted)), torch.tensor(wanted)].sum()
    assert float(found["prefix"]) == pytest.approx(float(plain), rel=1e-4)
    assert float(found["prompt"]) == pytest.approx(float(plain), rel=1e-4)


@METHODS
def test_what_is_learned_is_counted_and_is_not_the_main_model(made, tiny_decoder, method):
    baseline = made(method)
    before, used = tiny_decoder.fingerprint(), tiny_decoder.usage.copy()
    (weight,) = baseline.trainable()
    assert not set(map(id, tiny_decoder.model.parameters())) & {id(weight)}
    baseline.log_prob(QUESTIONS, PROMPT, ANSWERS).sum().backward()
    assert float(weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in tiny_decoder.model.parameters())
    assert tiny_decoder.fingerprint() == before
    now = tiny_decoder.usage.since(used)
    fed = max(len(tiny_decoder.prompt_ids(q)) for q in QUESTIONS) + len(tiny_decoder.encode(PROMPT)) - 1
    assert now.prefilled == 3 * (fed + (4 if method == "prompt" else 0))
    assert now.backpropagated == now.prefilled + now.scored
    used = tiny_decoder.usage.copy()
    baseline.adapted().prefill(QUESTIONS, [5], [6], 0)
    assert tiny_decoder.usage.since(used).backpropagated == 0


@METHODS
def test_what_was_saved_answers_the_same_here_and_in_peft(made, host, tiny_decoder, tmp_path, method):
    baseline = made(method)
    baseline.save(tmp_path / "adapter")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    wanted = baseline.log_prob(QUESTIONS, PROMPT, ANSWERS).detach()
    again = host.create("baseline", method, {"num_virtual_tokens": 4, "init": "random"}, decoder=tiny_decoder)
    assert not torch.equal(again.log_prob(QUESTIONS, PROMPT, ANSWERS).detach(), wanted)
    again.load(tmp_path / "adapter")
    assert torch.equal(again.log_prob(QUESTIONS, PROMPT, ANSWERS).detach(), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = peft.PeftModel.from_pretrained(tiny_decoder.model, str(tmp_path / "adapter"))
    assert torch.equal(theirs.prompt_encoder["default"].embedding.weight, baseline.trainable()[0])
    wrong = host.create("baseline", method, {"num_virtual_tokens": 3}, decoder=tiny_decoder)
    with pytest.raises(RunFolderError, match="cannot restore"):
        wrong.load(tmp_path / "adapter")
    with pytest.raises(RunFolderError, match="cannot restore"):
        again.load(tmp_path / "nowhere")


def test_padding_changes_nothing(made):
    for method in ("prefix", "prompt"):
        baseline = made(method)
        together = baseline.log_prob(QUESTIONS, PROMPT, ANSWERS).detach()
        alone = [baseline.log_prob([q], PROMPT, [a]).detach()[0] for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
        np.testing.assert_allclose(together.numpy(), torch.stack(alone).numpy(), rtol=1e-4)


def test_a_missing_library_is_named_with_what_to_install(host, monkeypatch):
    check_installed(host.find("baseline", "prefix"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError) as refused:
        check_installed(host.find("baseline", "prefix"))
    assert str(refused.value) == "baseline 'prefix' needs peft: pip install 'deeplatent-reasoning[baselines]'"


def test_a_decoder_without_a_transformers_model_is_refused(host):
    with pytest.raises(ConfigError, match="needs a main model on Transformers"):
        host.create("baseline", "prefix", {}, decoder=object())
