"""Chains that share one copy of their prompt: what comes out is what a copy for each of them gives."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from dlr_plugins.decoders import abreast as threads
from dlr_plugins.decoders import hf, shared_prompts, teacher_forced
from dlr_plugins.decoders.abreast import abreast, workers_for
from dlr_plugins.decoders.grouping import arrange
from dlr_plugins.decoders.shared_prompts import Chains
from dlr_plugins.decoders.shared_stepper import SharedStepper
from dlr_plugins.decoders.token_log_prob import SLICE_ON_CPU, token_log_prob

from dlr_core import records

QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please.", "3 * 4 ="]
ROWS = torch.tensor([1, 0, 0, 2, 0, 3, 0, 0, 2, 1, 0])
"""Uneven, out of order, one question with more than twice the mean."""
TEXTS = ["12", "7 eggs", "", "because of it", "3", "44", "5 5", "no", "12", "seven", "1"]
NEAR_TIE = 1e-4
KINDS = ("kv", "input", "vocab", "steer")


@pytest.fixture(scope="module")
def copying(tiny_model):
    """The same model, a copy of the prompt for every chain."""
    from dlr_core import PluginHost

    decoder = PluginHost.from_entry_points().create("decoder", "hf", {"model": str(tiny_model)})
    assert decoder.shares_prompts
    decoder.shares_prompts = False
    return decoder


@pytest.fixture(autouse=True, params=["apart", "held apart", "to each"])
def beginning(request, monkeypatch):
    """Whether what all prompts begin with is held, and read, once for all of them."""
    monkeypatch.setattr(records, "FEW", 10**6 if request.param == "to each" else 0)
    monkeypatch.setattr(shared_prompts, "FEW", 0 if request.param == "apart" else 10**6)
    return request.param


def make(host, decoder, kind):
    options = {"num_latents": 3, "latent_dim": 8, "anchor": " Let me see", "chart": "random"}
    space = host.create("space", kind, options, decoder=decoder)
    space.calibrate(QUESTIONS)
    return space


def actions():
    return 2 * torch.rand(len(ROWS), 3, 8, generator=torch.Generator().manual_seed(0)) - 1


def prefill(decoder, space):
    return decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, space.num_latents)


def both(host, tiny_decoder, copying, kind, chain):
    """The chains ready to be read, sharing their prompts and with a copy each."""
    shared = make(host, tiny_decoder, kind)
    copied = make(host, copying, kind)
    with_trunk = shared.inject(prefill(tiny_decoder, shared).share(ROWS), chain)
    return with_trunk, copied.inject(prefill(copying, copied).select(ROWS), chain)


def same_tokens(copying, ready, one, other):
    """Token for token, but for near-ties of the two best logits; how many of these there were."""
    ties = 0
    for row in range(len(ROWS)):
        a, b = (done.ids_NL[row][done.mask_NL[row].bool()].tolist() for done in (one, other))
        if a == b:
            continue
        ties += 1
        at = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        ids, last = torch.tensor([a[: at + 1], b[: at + 1]]), torch.zeros(2, at + 1)
        last[:, -1] = 1.0
        p, q = copying.log_prob(ready.select(torch.tensor([row, row])), ids, last).tolist()
        assert abs(p - q) < NEAR_TIE
    return ties


# ---- arrangement ---------------------------------------------------------------------------------------------------


def held(groups: list[int], size: int, far: int, own: int) -> int:
    return len(groups) * (far + size * own)


def test_rows_of_a_group_have_one_prompt_and_every_row_a_slot_of_its_own() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        prompts = (generator.geometric(generator.uniform(0.1, 0.9), int(generator.integers(1, 40))) % 9).tolist()
        far, own = generator.integers(0, 60, 2).tolist()
        groups, size, slots = arrange(prompts, far, own)
        assert len(set(slots)) == len(prompts)
        assert [groups[slot // size] for slot in slots] == prompts
        assert held(groups, size, far, own) <= len(prompts) * (far + own)  # what it is without sharing
        for other in range(1, len(prompts) + 1):
            with_it = [prompt for prompt in set(prompts) for _ in range(-(-prompts.count(prompt) // other))]
            if other in {1, *map(prompts.count, prompts)}:
                assert held(groups, size, far, own) <= held(with_it, other, far, own)


def test_as_many_rows_for_every_prompt_leave_no_slot_empty_and_stay_in_order() -> None:
    assert arrange([0, 0, 1, 1, 2, 2], 9, 5) == ([0, 1, 2], 2, [0, 1, 2, 3, 4, 5])
    assert arrange([5, 2], 9, 5) == ([2, 5], 1, [1, 0])
    assert arrange([7] * 4, 9, 5) == ([7], 4, [0, 1, 2, 3])
    assert arrange([7] * 4, 0, 5) == ([7], 4, [0, 1, 2, 3])


def test_a_prompt_with_many_rows_has_several_groups_where_empty_slots_take_more_than_prompts() -> None:
    uneven = [0] * 9 + [1, 2]
    groups, size, slots = arrange(uneven, 100, 10)
    assert (groups, size) == ([0, 1, 2], 9)
    assert sorted(slots) == [*range(9), 9, 18]
    groups, size, slots = arrange(uneven, 10, 20)
    assert (groups, size) == ([0] * 9 + [1, 2], 1)
    assert sorted(slots) == list(range(11))


def test_a_prompt_that_is_kept_has_a_group_without_rows():
    assert arrange([4, 4, 1], 9, 4, kept=[3, 4]) == ([1, 3, 4], 2, [4, 5, 0])


# ---- the record ----------------------------------------------------------------------------------------------------


def test_sharing_copies_nothing_before_the_latents_and_is_selecting(tiny_decoder, host, beginning):
    cache = prefill(tiny_decoder, make(host, tiny_decoder, "kv"))
    shared, copied = cache.share(ROWS), cache.select(ROWS)
    assert shared.trunk.keys[1].untyped_storage().data_ptr() == cache.keys[1].untyped_storage().data_ptr()
    if beginning == "to each":
        assert shared.trunk.fixed == 0
    else:
        assert shared.trunk.beginning.keys[1].untyped_storage().data_ptr() == cache.beginning.keys[1].data_ptr()
    assert shared.trunk.length == shared.trunk.fixed + shared.trunk.keys[1].shape[2] == cache.mask_NS.shape[1] - 3
    assert shared.keys[1].shape[2] == 3
    some = torch.tensor([4, 0])
    for one, other in (
        (shared.whole(), copied),
        (shared.select(some).whole(), copied.select(some)),
        (shared.share(some).whole(), copied.select(some)),
        (shared.crop(2).whole(), copied.crop(2)),  # within what all begin with
        (shared.crop(9).whole(), copied.crop(9)),
        (shared.crop(cache.mask_NS.shape[1] - 1).whole(), copied.crop(cache.mask_NS.shape[1] - 1)),
    ):
        assert one.trunk is None
        for layer in range(3):
            assert torch.equal(one.keys[layer], other.keys[layer])
            assert torch.equal(one.values[layer], other.values[layer])
        assert torch.equal(one.mask_NS, other.mask_NS)
        assert torch.equal(one.positions_NS, other.positions_NS)
        assert torch.equal(one.states_NSH, other.states_NSH)
        assert torch.equal(one.pending_NPH, other.pending_NPH)
        assert one.num_latents == other.num_latents


# ---- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_chains_that_share_a_prompt_say_what_chains_with_a_copy_say(host, tiny_decoder, copying, kind):
    shared, copied = both(host, tiny_decoder, copying, kind, actions())
    one, other = tiny_decoder.decode(shared, 10), copying.decode(copied, 10)
    assert len(set(one.texts)) > 4
    assert len(set(one.mask_NL.sum(1).tolist())) > 1  # rows end, and leave, at different times
    assert same_tokens(copying, copied, one, other) <= 1


def test_what_all_prompts_begin_with_is_read_once_where_they_are_many(host, tiny_decoder, copying, beginning):
    ready, _ = both(host, tiny_decoder, copying, "kv", actions())
    chains, fixed = Chains(ready), ready.trunk.fixed
    whole = ready.trunk.length
    if beginning == "to each":
        assert fixed == 0
    else:
        assert fixed > 3
    if beginning == "apart":
        assert [key.shape[1] for key, _ in chains.beginning] == [fixed] * 3
    assert bool(chains.beginning) == (beginning == "apart")
    far = whole - fixed if beginning == "apart" else whole
    assert all(key.shape[2] == value.shape[2] == far for key, value in chains.prompts)


@pytest.mark.parametrize("left", [[20, 1], [1], [9], [20, 17], [9, 17, 9], [23, 0, 1, 8]])
def test_rows_that_go_on_in_several_ways_leave_no_slot_empty_that_need_not_be(tiny_decoder, left):
    rows, forked = torch.tensor([0, 0, 1, 2]), torch.tensor([0] * 4 + [1] * 4 + [2] * 8 + [3] * 8)
    cache, table = tiny_decoder.prefill(QUESTIONS[:3], [5, 6], [7], 2), tiny_decoder.embedding_table()[:, None]
    stepper = SharedStepper(tiny_decoder.model, cache.share(rows), 60)
    stepper.feed(table[9:13])
    stepper.keep(forked)
    assert stepper.chains.groups * stepper.chains.size == len(forked)
    again = stepper.feed(table[20:44])
    alone = SharedStepper(tiny_decoder.model, cache.share(rows[forked]), 60)
    alone.feed(table[9:13][forked])
    torch.testing.assert_close(again, alone.feed(table[20:44]), atol=1e-4, rtol=1e-4)
    for each in (stepper, alone):
        each.keep(torch.tensor(left))
    only = SharedStepper(tiny_decoder.model, cache.share(rows[forked][left]), 60)
    for fed in (table[9:13][forked], table[20:44]):
        only.feed(fed[left])
    last = table[50 : 50 + len(left)]
    expected = only.feed(last)
    for each in (stepper, alone):
        torch.testing.assert_close(each.feed(last), expected, atol=1e-4, rtol=1e-4)


def test_prompts_are_not_copied_before_half_of_them_are_left(tiny_decoder):
    cache = tiny_decoder.prefill(QUESTIONS[:3], [5, 6], [7], 2)
    stepper = SharedStepper(tiny_decoder.model, cache.share(torch.arange(3)), 60)
    stepper.feed(tiny_decoder.embedding_table()[9:12][:, None])
    held = stepper.chains.prompts
    stepper.keep(torch.tensor([0, 0, 2, 2]))
    assert stepper.chains.prompts is held
    stepper.keep(torch.tensor([1, 1]))
    assert len(stepper.chains.prompts[0][0]) == 1


def test_first_positions_that_were_changed_are_read_as_they_are(tiny_decoder, copying):
    plain, ids_NL = tiny_decoder.prefill(QUESTIONS, [5, 6], [7], 2), torch.full((len(QUESTIONS), 4), 30)
    other = replace(plain, values=tuple(value * 3.0 for value in plain.values))
    assert other.beginning is not None
    found = [decoder.log_prob(other, ids_NL, torch.ones(ids_NL.shape)) for decoder in (tiny_decoder, copying)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], tiny_decoder.log_prob(plain, ids_NL, torch.ones(ids_NL.shape)), atol=1e-2)
    one, two = (decoder.decode(other, 1, entropy=True).entropy_N for decoder in (tiny_decoder, copying))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_sampled_chains_draw_the_same_tokens_and_report_the_same_entropy(host, tiny_decoder, copying):
    shared, copied = both(host, tiny_decoder, copying, "kv", actions())
    found = []
    for decoder, ready in ((tiny_decoder, shared), (copying, copied)):
        generators = [np.random.default_rng(row) for row in range(len(ROWS))]
        found.append(decoder.decode(ready, 8, 1.0, generators, entropy=True))
    assert found[0].texts == found[1].texts
    torch.testing.assert_close(found[0].entropy_N, found[1].entropy_N, atol=1e-4, rtol=1e-4)


def test_rows_that_end_leave_and_the_others_go_on_as_alone(tiny_decoder):
    questions = [f"How much is {number} + {number}?" for number in range(12)]
    cache = tiny_decoder.prefill(questions, tiny_decoder.encode(" Let me"), tiny_decoder.encode("?"), 2)
    rows = torch.arange(12).repeat_interleave(3)
    ready = cache.share(rows)
    moved = tuple(v + 0.1 * torch.randn(v.shape, generator=torch.Generator().manual_seed(1)) for v in ready.values)
    ready = replace(ready, values=moved)
    before = tiny_decoder.usage.copy()
    done = tiny_decoder.decode(ready, 12)
    ended = int(done.ended_N.sum())
    assert 18 < ended < 36  # more than half of them: what is held is given up on the way
    assert tiny_decoder.usage.since(before).decoded == int(done.mask_NL.sum())
    parts = 0
    for row in range(36):
        alone = tiny_decoder.decode(ready.select(torch.tensor([row])), 12)
        parts += alone.texts[0] != done.texts[row]
    assert parts <= 1  # a near-tie of logits


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_and_their_gradients_are_those_of_copies(host, tiny_decoder, copying, kind, temperature):
    found = []
    ids_NL, mask_NL = tiny_decoder.encode_targets(TEXTS)
    weights = torch.linspace(-1, 2, len(ROWS))
    for decoder, choose in ((tiny_decoder, "share"), (copying, "select")):
        space, chain = make(host, decoder, kind), actions().requires_grad_()
        ready = space.inject(getattr(prefill(decoder, space), choose)(ROWS), chain)
        log_prob = decoder.log_prob(ready, ids_NL, mask_NL, temperature)
        (log_prob * weights).sum().backward()
        with torch.no_grad():
            silent = decoder.log_prob(ready, ids_NL, mask_NL, temperature)
        assert not silent.requires_grad
        found.append((log_prob.detach(), silent, chain.grad))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-5)
    size = float(found[1][2].abs().max())
    torch.testing.assert_close(found[0][2] / size, found[1][2] / size, atol=1e-4, rtol=1e-3)


def test_only_the_tokens_that_are_asked_for_are_scored(host, tiny_decoder, copying):
    shared, copied = both(host, tiny_decoder, copying, "kv", actions())
    ids_NL, _ = tiny_decoder.encode_targets(["12345678"] * len(ROWS))
    mask_NL = torch.zeros(ids_NL.shape)
    for row in range(len(ROWS)):
        mask_NL[row, row % 5] = 1.0  # one token each, what comes before it is given
    before = tiny_decoder.usage.copy()
    got = tiny_decoder.log_prob(shared, ids_NL, mask_NL)
    used = tiny_decoder.usage.since(before)
    torch.testing.assert_close(got, copying.log_prob(copied, ids_NL, mask_NL), atol=1e-5, rtol=1e-5)
    assert used.scored == sum(row % 5 + 1 for row in range(len(ROWS)))
    assert used.logits == len(ROWS)
    nothing = tiny_decoder.log_prob(shared, ids_NL, torch.zeros(ids_NL.shape))
    assert nothing.tolist() == [0.0] * len(ROWS)


def test_gradients_reach_a_whole_prompt_where_nothing_is_shared(tiny_decoder, copying):
    cache = tiny_decoder.prefill(QUESTIONS, tiny_decoder.encode(" Let"), tiny_decoder.encode("?"), 0)
    ids_NL, mask_NL = tiny_decoder.encode_targets(TEXTS[:4])
    found = []
    for decoder in (tiny_decoder, copying):
        keys = tuple(key.clone().requires_grad_() for key in cache.keys)
        decoder.log_prob(replace(cache, keys=keys), ids_NL, mask_NL).sum().backward()
        found.append([key.grad for key in keys])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
        assert float(one[:, :, 0].abs().sum()) >= 0  # padding included: nothing of it is left out
    keys = tuple(key.clone().requires_grad_() for key in cache.keys)
    trunk = replace(cache, keys=keys, beginning=None).share(torch.arange(4))
    tiny_decoder.log_prob(trunk, ids_NL, mask_NL).sum().backward()  # a shared prompt may need gradients too


def counted(method, calls):
    def call(*args, **kwargs):
        calls.append(1)
        return method(*args, **kwargs)

    return call


@pytest.mark.parametrize("few", [5, 40])
def test_scoring_in_many_passes_changes_nothing(host, tiny_decoder, copying, monkeypatch, few):
    ids_NL, mask_NL = tiny_decoder.encode_targets(TEXTS)
    found = []
    for tokens in (10_000, few):
        monkeypatch.setattr(tiny_decoder, "_teacher", replace(tiny_decoder._teacher, at_once=tokens))
        calls = []
        monkeypatch.setattr(teacher_forced._Work, "score", counted(teacher_forced._Work.score, calls))
        chain = actions().requires_grad_()
        shared, _ = both(host, tiny_decoder, copying, "kv", chain)
        log_prob = tiny_decoder.log_prob(shared, ids_NL, mask_NL)
        (log_prob * torch.arange(len(ROWS))).sum().backward()
        found.append((log_prob.detach(), chain.grad, len(calls)))
    assert found[1][2] > found[0][2]
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-3, rtol=1e-3)


def test_halves_of_a_batch_by_two_threads_give_what_one_gives(host, tiny_decoder, copying, monkeypatch):
    ids_NL, mask_NL = tiny_decoder.encode_targets(TEXTS)
    found = []
    for workers in (1, 2):
        monkeypatch.setattr(teacher_forced, "workers_for", lambda *_, workers=workers: workers)
        chain, before = actions().requires_grad_(), tiny_decoder.usage.copy()
        shared, _ = both(host, tiny_decoder, copying, "kv", chain)
        log_prob = tiny_decoder.log_prob(shared, ids_NL, mask_NL)
        (log_prob * torch.arange(len(ROWS))).sum().backward()
        found.append((log_prob.detach(), chain.grad, tiny_decoder.usage.since(before)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-3, rtol=1e-3)
    assert found[0][2].scored == found[1][2].scored


# ---- the vocabulary ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("bias", [False, True])
def test_token_log_probs_in_slices_are_those_of_log_softmax(bias, temperature):
    torch.manual_seed(0)
    hidden, table = torch.randn(SLICE_ON_CPU * 2 + 37, 12), torch.randn(50, 12)
    head = torch.nn.Linear(12, 50, bias).requires_grad_(False)
    head.weight.copy_(table)
    ids, weights = torch.randint(50, (len(hidden),)), torch.randn(len(hidden))
    found = []
    for ours in (True, False):
        leaf = hidden.clone().requires_grad_()
        if ours:
            log_prob = token_log_prob(leaf, head, ids, temperature)
        else:
            logits = head(leaf) / temperature
            log_prob = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
        (log_prob * weights).sum().backward()
        found.append((log_prob.detach(), leaf.grad))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)


def test_a_model_that_changes_its_logits_is_asked_for_them(host, tiny_decoder, copying):
    shared, copied = both(host, tiny_decoder, copying, "kv", actions())
    ids_NL, mask_NL = tiny_decoder.encode_targets(TEXTS)
    assert tiny_decoder._teacher.plain_head
    asking = replace(tiny_decoder._teacher, plain_head=False)
    got = asking.log_prob(shared, ids_NL, mask_NL, 0.7, tiny_decoder.usage)
    torch.testing.assert_close(got, copying.log_prob(copied, ids_NL, mask_NL, 0.7), atol=1e-5, rtol=1e-5)


# ---- models that cannot share --------------------------------------------------------------------------------------


def refused(host, model, caplog):
    with caplog.at_level(logging.WARNING):
        decoder = host.create("decoder", "hf", {"model": str(model)})
    (message,) = [record.getMessage() for record in caplog.records if "copies its prompt" in record.getMessage()]
    assert not decoder.shares_prompts
    assert decoder.model.config._attn_implementation != shared_prompts.NAME
    return decoder, message


def test_where_attention_comes_out_differently_every_chain_copies_its_prompt(host, tiny_model, caplog, monkeypatch):
    honest = shared_prompts.Chains.attend
    monkeypatch.setattr(shared_prompts.Chains, "attend", lambda *given: 0.9 * honest(*given))
    decoder, message = refused(host, tiny_model, caplog)
    assert message == "LlamaForCausalLM: every chain copies its prompt: its logits come out differently"
    assert decoder.decode(decoder.prefill(QUESTIONS, [], [], 0), 3).texts


def test_a_model_with_another_attention_keeps_it(host, tiny_model, caplog, monkeypatch):
    plain = hf.load

    def eager(*given):
        model, tokenizer = plain(*given)
        model.set_attn_implementation("eager")
        return model, tokenizer

    monkeypatch.setattr(hf, "load", eager)
    assert refused(host, tiny_model, caplog)[1].endswith("its attention is 'eager'")


def test_an_attention_with_more_to_it_is_refused(host, tiny_model, caplog, monkeypatch):
    plain = shared_prompts.attend
    capped = lambda *given, **named: plain(*given, **{**named, "softcap": 30.0})  # noqa: E731
    monkeypatch.setitem(shared_prompts.AttentionInterface._global_mapping, shared_prompts.NAME, capped)
    assert refused(host, tiny_model, caplog)[1].endswith("ModelError: its attention has softcap")


def test_gpt2_shares_prompts_too(host, tiny_gpt2):
    decoder = host.create("decoder", "hf", {"model": str(tiny_gpt2)})
    assert decoder.shares_prompts
    ids_NL, mask_NL = decoder.encode_targets(TEXTS)
    cache = decoder.prefill(QUESTIONS, decoder.encode(" Let"), decoder.encode("?"), 2)
    got = decoder.log_prob(cache.share(ROWS), ids_NL, mask_NL)
    decoder.shares_prompts = False
    torch.testing.assert_close(got, decoder.log_prob(cache.select(ROWS), ids_NL, mask_NL), atol=1e-5, rtol=1e-5)


# ---- threads -------------------------------------------------------------------------------------------------------


def test_jobs_come_back_in_order_each_with_its_share_of_the_threads(monkeypatch):
    monkeypatch.setattr(threads, "_pools", {})
    mine = torch.get_num_threads()
    found = abreast([lambda number=number: (number, torch.get_num_threads()) for number in range(5)], 2)
    assert [number for number, _ in found] == list(range(5))
    assert {count for _, count in found} == {max(1, mine // 2)}
    assert torch.get_num_threads() == mine


def test_the_first_error_of_a_job_is_raised():
    def fail():
        raise ValueError("no")

    for workers in (1, 2):
        with pytest.raises(ValueError, match="no"):
            abreast([lambda: 1, fail], workers)


def test_small_work_and_other_devices_are_not_cut(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cpu = torch.device("cpu")
    assert workers_for(cpu, 64, 1e10) == 4
    assert workers_for(cpu, 40, 1e10) == 2
    assert workers_for(cpu, 31, 1e10) == 1
    assert workers_for(cpu, 64, 1e6) == 1
    assert workers_for(torch.device("cuda"), 64, 1e10) == 1


def test_a_decoder_scores_as_many_positions_at_once_as_it_is_told(tiny_model):
    told = hf.HFDecoder(hf.HFDecoder.Options(model=str(tiny_model), scored_at_once=8))
    assert told._teacher.at_once == 8
