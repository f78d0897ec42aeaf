"""Distinct completions: a sample without replacement of all that the frozen model could write."""

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from dlr_plugins.decoders import distinct
from dlr_plugins.decoders.distinct import write_distinct
from dlr_plugins.decoders.drafting import Draft

QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please."]
COUNT, LIMIT = 5, 6
FIRST = (0.5, 0.3, 0.2)
SECOND = {0: (0.1, 0.6, 0.3), 1: (0.25, 0.25, 0.5)}
END = 2
"""Token 2 ends a completion; after 0 and 1 comes one more token, by ``SECOND``."""
LIKELY = {
    (END,): FIRST[END],
    **{(one, two): FIRST[one] * SECOND[one][two] for one, two in product((0, 1), range(3))},
}


class Tree:
    """A stepper of a model with three tokens and two places, all of whose completions can be counted."""

    def __init__(self, rows):
        self.seen = [()] * rows

    def feed(self, embeds_RPH):
        """Logits after what each row has been fed: nothing at first, then one token."""
        tokens = embeds_RPH[:, -1, 0].long().tolist()
        self.seen = [() if token < 0 else (*seen, token) for seen, token in zip(self.seen, tokens, strict=True)]
        return torch.tensor([FIRST if not seen else SECOND[seen[0]] for seen in self.seen]).log()

    def keep(self, rows_M):
        """Repeats allowed."""
        self.seen = [self.seen[row] for row in rows_M.tolist()]


def drawn(rows, count, seed, opening=()):
    """``count`` completions of each of so many equal prompts, as tuples of tokens."""
    draft = Draft.blank(rows * count, 2, END, torch.device("cpu"))
    generators = [np.random.default_rng((seed, row)) for row in range(rows)]
    nothing = torch.full((rows, 1, 1), -1.0)
    begun = [opening] * rows
    embed, ends = (lambda ids: ids[:, None].float()), torch.tensor([END])
    write_distinct(draft, Tree(rows), nothing, [count] * rows, begun, generators, embed, ends)
    lengths = draft.mask_NL.sum(1).int().tolist()
    texts = [tuple(ids[:length]) for ids, length in zip(draft.ids_NL.tolist(), lengths, strict=True)]
    return [texts[start : start + count] for start in range(0, len(texts), count)]


def test_the_first_is_drawn_by_its_probability_and_the_second_from_what_is_left():
    draws = 6000
    pairs = Counter(tuple(own) for own in drawn(draws, 2, seed=0))
    for one, two in product(LIKELY, LIKELY):
        wanted = 0.0 if one == two else LIKELY[one] * LIKELY[two] / (1 - LIKELY[one])
        assert pairs[one, two] / draws == pytest.approx(wanted, abs=4 * (wanted / draws) ** 0.5)


def test_as_many_as_there_are_come_out_once_each():
    for own in drawn(20, len(LIKELY), seed=1):
        assert sorted(own) == sorted(LIKELY)


def test_under_an_opening_only_what_follows_it_is_drawn():
    for own in drawn(20, 3, seed=1, opening=(1,)):
        assert sorted(own) == [(1, second) for second in range(3)]
    draws = 4000
    firsts = Counter(own[0] for own in drawn(draws, 2, seed=2, opening=(0,)))
    for second, likely in enumerate(SECOND[0]):
        assert firsts[0, second] / draws == pytest.approx(likely, abs=4 * (likely / draws) ** 0.5)


def test_where_fewer_can_be_written_the_rest_is_empty():
    (own,) = drawn(1, len(LIKELY) + 2, seed=1)
    assert sorted(own) == sorted([*LIKELY, (), ()])


# ---- on a language model ---------------------------------------------------------------------------------------------


def ready(host, decoder, chains=True):
    space = host.create(
        "space", "kv", {"num_latents": 3, "latent_dim": 8, "anchor": " Let me see", "chart": "random"}, decoder=decoder
    )
    space.calibrate(QUESTIONS)
    cache = decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, space.num_latents)
    actions = 2 * torch.rand(len(QUESTIONS), 3, 8, generator=torch.Generator().manual_seed(0)) - 1
    cache = cache.share(torch.arange(len(QUESTIONS))) if chains else cache
    return space.inject(cache, actions)


def generators(rows=range(3)):
    return [np.random.default_rng(row) for row in rows]


@pytest.fixture
def copying(tiny_decoder, monkeypatch):
    """The same model, a copy of the prompt for every chain."""
    monkeypatch.setattr(tiny_decoder, "shares_prompts", False)
    return tiny_decoder


def test_completions_of_one_prompt_all_differ(host, tiny_decoder):
    done = tiny_decoder.decode_distinct(ready(host, tiny_decoder), [COUNT] * 3, LIMIT, generators())
    assert len(done.texts) == len(QUESTIONS) * COUNT
    for start in range(0, len(done.texts), COUNT):
        rows = slice(start, start + COUNT)
        written = [
            tuple(ids[mask.bool()].tolist()) for ids, mask in zip(done.ids_NL[rows], done.mask_NL[rows], strict=True)
        ]
        assert len(set(written)) == COUNT
    lengths = done.mask_NL.sum(1)
    assert bool(((lengths == LIMIT) | done.ended_N).all())


def test_a_completion_is_ranked_by_the_probability_that_the_model_gives_it(host, tiny_decoder, monkeypatch):
    kept = {}

    def noting(beginning, *rest):
        found = plain(beginning, *rest)
        kept.update({(beginning.ids, each.ids[-1]): each.log_prob for each in found})
        return found

    plain = distinct.continued
    monkeypatch.setattr(distinct, "continued", noting)
    cache = ready(host, tiny_decoder).select(torch.tensor([2]))
    done = tiny_decoder.decode_distinct(cache, [COUNT], LIMIT, generators([7]))
    said = tiny_decoder.log_prob(cache.select(torch.zeros(COUNT, dtype=torch.long)), done.ids_NL, done.mask_NL)
    for ids_L, mask_L, log_prob in zip(done.ids_NL, done.mask_NL, said.tolist(), strict=True):
        ids = tuple(ids_L[mask_L.bool()].tolist())
        assert kept[ids[:-1], ids[-1]] == pytest.approx(log_prob, abs=1e-3)


def test_prompts_held_once_give_what_a_copy_for_each_gives(host, tiny_decoder, copying):
    copied = copying.decode_distinct(ready(host, copying, chains=False), [COUNT] * 3, LIMIT, generators())
    copying.shares_prompts = True
    shared = tiny_decoder.decode_distinct(ready(host, tiny_decoder), [COUNT] * 3, LIMIT, generators())
    assert shared.texts == copied.texts


def test_a_prompt_is_completed_as_it_is_alone(host, tiny_decoder):
    cache = ready(host, tiny_decoder)
    together = tiny_decoder.decode_distinct(cache, [COUNT] * 3, LIMIT, generators())
    for row in range(len(QUESTIONS)):
        alone = tiny_decoder.decode_distinct(cache.select(torch.tensor([row])), [COUNT], LIMIT, generators([row]))
        assert alone.texts == together.texts[row * COUNT : (row + 1) * COUNT]


def test_each_prompt_has_its_own_number_of_completions_and_its_own_opening(host, tiny_decoder):
    cache, counts = ready(host, tiny_decoder), [2, COUNT, 3]
    begun = [tiny_decoder.encode(text) for text in ("", "7", "12 3")]
    done = tiny_decoder.decode_distinct(cache, counts, LIMIT, generators(), begun)
    assert len(done.texts) == sum(counts)
    start = 0
    for row, (count, opening) in enumerate(zip(counts, begun, strict=True)):
        one = cache.select(torch.tensor([row]))
        alone = tiny_decoder.decode_distinct(one, [count], LIMIT, generators([row]), [opening])
        own = slice(start, start + count)
        assert done.texts[own] == alone.texts
        assert len(set(done.texts[own])) == count
        assert done.ids_NL[own, : len(opening)].tolist() == [opening] * count
        start += count


def test_a_completion_with_an_opening_is_sampled_as_what_follows_that_opening(host, tiny_decoder):
    cache, opening = ready(host, tiny_decoder), tiny_decoder.encode("7")
    begun = tiny_decoder.decode_distinct(cache, [COUNT] * 3, LIMIT, generators(), [opening] * 3)
    given_NPH = tiny_decoder.embedding_table()[opening].expand(3, -1, -1)
    fed = replace(cache, pending_NPH=torch.cat([cache.pending_NPH, given_NPH], 1))
    after = tiny_decoder.decode_distinct(fed, [COUNT] * 3, LIMIT - len(opening), generators())
    assert begun.texts == ["7" + text for text in after.texts]


def test_positions_that_are_fed_are_counted(host, tiny_decoder):
    cache, before = ready(host, tiny_decoder), tiny_decoder.usage.copy()
    done = tiny_decoder.decode_distinct(cache, [COUNT] * 3, LIMIT, generators())
    spent = tiny_decoder.usage.since(before)
    assert 0 < spent.logits == spent.decoded <= len(QUESTIONS) + done.mask_NL[:, :-1].sum()
