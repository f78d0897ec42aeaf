"""Prompts kept prefilled: the same bits as prefilled, within the limit, least recently asked for dropped first."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dlr_plugins.decoders import prefilling

from dlr_core.prompt_store import Disk, InMemory
from dlr_core.question_cache import MB, QuestionCache
from dlr_core.records import PromptCache

UNEQUAL = ["What is 1 and 2?", "What is 1000000 and, in all, 2?", "What is 10?", "What is 3 and 4?"]
QUESTIONS = [f"What is {n} and {n + 1}?" for n in range(6)]


class Counted:
    """A decoder's prefill that notes what it is asked."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.asked = decoder, []

    def __call__(self, questions: Sequence[str]) -> PromptCache:
        self.asked.append(tuple(questions))
        anchor = self.decoder.encode("Result:")
        made: PromptCache = self.decoder.prefill(questions, anchor[:-1], anchor[-1:], len(anchor) - 1)
        return made


def tensors(prompt: PromptCache) -> list[torch.Tensor]:
    return [*prompt.keys, *prompt.values, prompt.mask_NS, prompt.states_NSH, prompt.pending_NPH]


def same(one: PromptCache, other: PromptCache) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def alive(cache: QuestionCache) -> int:
    """Bytes that a cache keeps alive, each beginning once."""
    starts = {id(held.own.beginning): held.own.beginning for held in cache.held.values()}
    return sum(held.size for held in cache.held.values()) + sum(start.size for start in starts.values() if start)


def row(cache: PromptCache, number: int) -> PromptCache:
    return cache.select(torch.tensor([number]))


def prompts(cache: QuestionCache, questions: Sequence[str]) -> list[PromptCache]:
    """What is asked for, one by one."""
    found = cache.prompts(questions).whole()
    return [row(found, number) for number in range(found.rows)]


def limit_of(prefill: Counted, count: int) -> int:
    """Bytes of so many prompts that were prefilled alone, and half a one."""
    cache = QuestionCache(prefill, 10**12)
    prompts(cache, QUESTIONS[:1])
    (held,) = cache.held.values()
    return int(cache.size + held.size * (count - 0.5))


Make = Callable[[Callable[[Sequence[str]], PromptCache], int], QuestionCache]


@pytest.fixture(params=["memory", "disk"])
def made(request: Any, tmp_path: Path) -> Make:
    """A new cache, in memory or on disk."""
    return lambda prefill, limit: QuestionCache(
        prefill, limit, InMemory if request.param == "memory" else Disk(tmp_path).keep
    )


@pytest.fixture
def prefill(tiny_decoder: Any) -> Counted:
    return Counted(tiny_decoder)


def test_a_prompt_comes_back_as_it_was_prefilled(made: Make, prefill: Counted) -> None:
    cache, fresh = made(prefill, 10**12), prefill(QUESTIONS)
    cache.keep(QUESTIONS, fresh)
    assert fresh.beginning is not None
    assert fresh.beginning.length > 3
    for _ in range(2):
        found = prompts(cache, QUESTIONS[::-1])
        assert all(same(one, row(fresh, 5 - number)) for number, one in enumerate(found))
    assert len(prefill.asked) == 1


def test_what_all_prompts_asked_for_begin_with_is_there_once(made: Make, prefill: Counted) -> None:
    cache = made(prefill, 10**12)
    for question in QUESTIONS:  # each has the template's beginning, those of a cohort more
        cache.prompts([question])
    cache.prompts(["How much is 5 + 6?", "How much is 5 + 7?"])
    found = cache.prompts([*QUESTIONS, "How much is 5 + 7?"])
    longer, alone = cache.held["How much is 5 + 7?"].beginning, cache.held[QUESTIONS[0]].beginning
    assert found.trunk is not None
    assert found.trunk.beginning is not None
    assert longer is not None
    assert alone is not None
    assert found.trunk.beginning.ids == alone.ids == longer.ids[: alone.length] != longer.ids
    width = found.mask_NS.shape[1]
    assert all(key.shape[2] == found.num_latents for key in found.keys)
    assert all(key.shape[2] == width - found.num_latents - alone.length for key in found.trunk.keys)
    for number, question in enumerate([*QUESTIONS, "How much is 5 + 7?"]):
        one, by_itself = row(found, number).whole(), prefill([question])
        real = one.mask_NS[0].bool()
        for mine, other in zip([*one.keys, *one.values], [*by_itself.keys, *by_itself.values], strict=True):
            torch.testing.assert_close(mine[:, :, real], other, rtol=1e-4, atol=1e-5)


def test_what_all_prompts_begin_with_is_not_held_with_each(prefill: Counted) -> None:
    cache, fresh = QuestionCache(prefill, 10**12), prefill(QUESTIONS)
    cache.keep(QUESTIONS, fresh)
    start, whole = fresh.beginning, sum(t.nbytes for t in (*fresh.keys, *fresh.values, fresh.states_NSH))
    assert start is not None
    common = sum(t.nbytes for t in (*start.keys, *start.values, start.states_1PH))
    assert cache.size == whole - 5 * common + fresh.pending_NPH.nbytes
    storages = {t.untyped_storage().nbytes() - t.nbytes for held in cache.held.values() for t in held.own.keys}
    assert storages == {0}  # no view that holds the whole prompt


def test_only_what_is_missing_is_prefilled_and_all_of_it_at_once(made: Make, prefill: Counted) -> None:
    cache = made(prefill, 10**12)
    prompts(cache, QUESTIONS[1:3])
    found = prompts(cache, QUESTIONS[:4])
    assert prefill.asked == [tuple(QUESTIONS[1:3]), (QUESTIONS[0], QUESTIONS[3])]
    again = prefill([QUESTIONS[0], QUESTIONS[3]])
    assert same(found[0], row(again, 0))
    assert same(found[3], row(again, 1))


def test_the_least_recently_asked_for_is_dropped_and_the_limit_kept(made: Make, prefill: Counted) -> None:
    limit = limit_of(prefill, 3)
    cache = made(prefill, limit)
    for question in QUESTIONS[:3]:
        prompts(cache, [question])
    prompts(cache, [QUESTIONS[0]])
    prompts(cache, [QUESTIONS[3]])
    assert list(cache.held) == [QUESTIONS[2], QUESTIONS[0], QUESTIONS[3]]
    cache.keep([QUESTIONS[2]], prefill([QUESTIONS[2]]))
    assert list(cache.held) == [QUESTIONS[0], QUESTIONS[3], QUESTIONS[2]]
    assert cache.size <= limit
    assert cache.size == alive(cache)


def test_beginnings_are_within_the_limit_each_held_once_and_given_back_with_its_last_prompt(
    made: Make, prefill: Counted
) -> None:
    pairs = [[f"Case {n} is one of many that are alike: {m}" for m in range(2)] for n in range(12)]
    cache = made(prefill, 10**12)
    for pair in pairs:
        prompts(cache, pair)
    starts = [held.own.beginning for held in cache.held.values()]
    assert all(one is other for one, other in zip(starts[::2], starts[1::2], strict=True))
    assert len(set(map(id, starts))) == 12
    assert cache.size == alive(cache)
    prefill.decoder._beginnings.clear()  # the decoder runs one again, which is equal to the one that is held
    cache.keep(["Case 3 is one of many that are alike: 7", "Case 3 is one of many that are alike: 8"], prefill(
        ["Case 3 is one of many that are alike: 7", "Case 3 is one of many that are alike: 8"]
    ))  # fmt: skip
    assert len({id(held.own.beginning) for held in cache.held.values()}) == 12
    limit = cache.limit = cache.size // 3
    for pair in pairs:
        prompts(cache, pair)
        assert cache.size == alive(cache) <= limit
    cache.limit = 0
    prompts(cache, QUESTIONS)
    assert cache.size == 0


@pytest.mark.parametrize("limit", [0, 1])
def test_what_is_asked_for_is_given_though_there_is_no_room_for_it(made: Make, prefill: Counted, limit: int) -> None:
    cache = made(prefill, limit)
    found = prompts(cache, QUESTIONS)
    fresh = prefill(QUESTIONS)
    assert all(same(one, row(fresh, number)) for number, one in enumerate(found))
    assert (len(cache.held), cache.size) == (0, 0)


def test_hits_are_counted_since_the_last_time(made: Make, prefill: Counted) -> None:
    cache = made(prefill, 10**12)
    assert "question_cache_hits" not in cache.log()
    prompts(cache, QUESTIONS[:2])
    prompts(cache, QUESTIONS[:2])
    prompts(cache, QUESTIONS[:4])
    logged = cache.log()
    assert logged == {"question_cache_hits": 0.5, "question_cache_mb": cache.size / MB}
    assert "question_cache_hits" not in cache.log()


def test_a_restored_cache_holds_the_same_bits_and_drops_in_the_same_order(made: Make, prefill: Counted) -> None:
    limit = limit_of(prefill, 2)
    cache, other = made(prefill, limit), made(prefill, limit)
    cache.keep(QUESTIONS[:3], prefill(QUESTIONS[:3]))
    prompts(cache, QUESTIONS[2:5])
    prompts(cache, [QUESTIONS[1], QUESTIONS[5]])
    assert len(cache.held) < len(QUESTIONS)
    other.restore(json.loads(json.dumps(cache.state())))
    assert list(other.held) == list(cache.held)
    assert other.size == cache.size
    assert all(same(other.held[text].own, held.own) for text, held in cache.held.items())
    for each in (cache, other):
        prompts(each, [QUESTIONS[0]])
    assert list(other.held) == list(cache.held)
    assert other.state() == cache.state()


@pytest.mark.parametrize("stripped", [False, True])
def test_padding_is_not_held(made: Make, prefill: Counted, stripped: bool) -> None:
    def padded(questions: Sequence[str]) -> PromptCache:
        full = prefill(questions)
        return replace(full, beginning=None) if stripped else full

    cache = made(padded, 10**12)
    cache.prompts(UNEQUAL)
    for question in UNEQUAL:
        own, alone = cache.held[question].own, prefill([question])
        start = own.beginning.length if own.beginning else 0
        assert (own.beginning is None) == stripped
        assert torch.equal(own.mask_NS, alone.mask_NS)
        assert all(key.shape[2] == alone.mask_NS.shape[1] - start for key in (*own.keys, *own.values))
        for mine, other in zip([*own.keys, *own.values], [*alone.keys, *alone.values], strict=True):
            torch.testing.assert_close(mine, other[:, :, start:], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.states_NSH, alone.states_NSH[:, start:], rtol=1e-4, atol=1e-5)
    wide, fresh = cache.prompts(UNEQUAL), padded(UNEQUAL)
    if not stripped:
        assert torch.equal(wide.mask_NS, fresh.mask_NS)  # beginnings stay in front, column by column the same tokens
        torch.testing.assert_close(
            wide.states_NSH * wide.mask_NS[..., None], fresh.states_NSH * fresh.mask_NS[..., None]
        )
    short = cache.prompts([UNEQUAL[0], UNEQUAL[2]])
    assert short.mask_NS.shape[1] == prefill(UNEQUAL[:1]).mask_NS.shape[1]  # no wider than what is asked for


@pytest.mark.parametrize("further", [0, 10**6])
def test_prompts_of_unequal_length_are_restored_to_the_same_bits(
    made: Make, prefill: Counted, monkeypatch: Any, further: int
) -> None:
    monkeypatch.setattr(prefilling, "PASS_ON_CPU", further)
    cache, other = made(prefill, 10**12), made(prefill, 10**12)
    cache.keep(UNEQUAL[:3], prefill(UNEQUAL[:3]))
    cache.prompts([*UNEQUAL[1:], QUESTIONS[5]])
    other.restore(json.loads(json.dumps(cache.state())))
    assert list(other.held) == list(cache.held)
    assert all(same(other.held[text].own, held.own) for text, held in cache.held.items())
    assert same(cache.prompts(UNEQUAL).whole(), other.prompts(UNEQUAL).whole())


def test_a_decoder_that_keeps_no_beginning_has_whole_prompts_held(made: Make, prefill: Counted) -> None:
    def plain(questions: Sequence[str]) -> PromptCache:
        made = prefill(questions)
        return PromptCache(made.keys, made.values, made.mask_NS, made.states_NSH, made.pending_NPH, made.num_latents)

    cache = made(plain, 10**12)
    prompts(cache, QUESTIONS[:2])
    fresh = plain(QUESTIONS[:2])
    assert all(same(one, row(fresh, number)) for number, one in enumerate(prompts(cache, QUESTIONS[:2])))


def test_a_drafting_decoder_finds_the_ids_of_its_prompts_again(made: Make, host: Any, tiny_model: Any) -> None:
    prefill = Counted(host.create("decoder", "lookup", {"model": str(tiny_model)}))
    cache, fresh = made(prefill, 10**12), prefill(QUESTIONS[:2])
    cache.keep(QUESTIONS[:2], fresh)
    assert fresh.ids_NS is not None
    for number, one in enumerate(prompts(cache, QUESTIONS[:2])):
        assert one.ids_NS is not None
        assert torch.equal(one.ids_NS, fresh.ids_NS[number : number + 1])
