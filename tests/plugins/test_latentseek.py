"""Test-time refinement: the latents that are kept convince the model more, and no gold answer is read."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from dlr_plugins.refiners.latentseek import VERDICT, LatentSeek

from dlr_core.errors import PluginError
from dlr_core.evaluate import Evaluator
from dlr_core.records import Item
from dlr_core.testing.toy import Nudge

QUESTIONS = ["How much is 5 + 6?", "And 7?", "Say 3."]


def given(space, rows=3):
    shape = (rows, space.num_latents, space.latent_dim)
    return 0.5 * torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 0.25


def seek(**options):
    return LatentSeek(LatentSeek.Options(**{"steps": 4, "rate": 0.2, "satisfied": 1.0, **options}))


def answers(decoder, space, latents):
    cache = decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, space.num_latents)
    return decoder.decode(space.inject(cache, latents), 5)


def test_belief_is_the_share_of_yes_against_no_after_the_verdict_prompt(tiny_decoder):
    got = seek().belief(tiny_decoder, QUESTIONS[:1], [" 11 "])
    asked = VERDICT.format(question=QUESTIONS[0], answer="11")
    prompt = tiny_decoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True
    )["input_ids"]
    with torch.no_grad():
        logits = tiny_decoder.model(torch.tensor([prompt])).logits[0, -1]
    yes, no = (logits[tiny_decoder.encode(word)[0]] for word in ("Yes", "No"))
    torch.testing.assert_close(got[0], torch.stack([yes, no]).softmax(0)[0], rtol=1e-3, atol=1e-4)


def test_no_question_ends_less_convincing_than_it_began_and_some_end_more(tiny_decoder):
    space, refiner = Nudge(tiny_decoder), seek(steps=6, rate=0.5)
    before = refiner.belief(tiny_decoder, QUESTIONS, answers(tiny_decoder, space, given(space)).texts)
    better = refiner(tiny_decoder, space, QUESTIONS, given(space), 5)
    after = refiner.belief(tiny_decoder, QUESTIONS, answers(tiny_decoder, space, better).texts)
    assert bool((after >= before - 1e-4).all())
    assert bool((after > before + 1e-3).any())


def test_a_step_makes_an_unconvincing_answer_less_likely(tiny_decoder):
    space, refiner = Nudge(tiny_decoder), seek(steps=1, rate=0.02)
    done = answers(tiny_decoder, space, given(space))
    beliefs = iter([torch.full((3,), 0.3), torch.full((3,), 0.4)])
    refiner.belief = lambda *asked: next(beliefs)  # the second answer convinces more, whatever it is
    moved = refiner(tiny_decoder, space, QUESTIONS, given(space), 5)
    cache = tiny_decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, space.num_latents)
    first, second = (
        tiny_decoder.log_prob(space.inject(cache, a), done.ids_NL, done.mask_NL) for a in (given(space), moved)
    )
    assert bool((second < first).all())


def test_a_convincing_answer_is_left_alone_while_others_go_on(tiny_decoder):
    space, refiner = Nudge(tiny_decoder), seek(steps=3, satisfied=0.9)
    rising = iter(torch.tensor([[0.95, 0.1, 0.1], [0.99, 0.2, 0.95], [0.99, 0.3, 0.99], [0.99, 0.4, 0.99]]))
    refiner.belief = lambda *asked: next(rising)
    decoded = []
    refiner_latents = space.inject
    space.inject = lambda cache, latents: decoded.append(latents.detach().clone()) or refiner_latents(cache, latents)
    refiner(tiny_decoder, space, QUESTIONS, given(space), 5)
    rounds = [latents for latents in decoded if len(latents) == 3]
    one, two, three = (after - before for before, after in pairwise(rounds))
    assert not bool(one[0].abs().max() > 1e-5)
    assert bool(one[2].any())
    assert not two[2].any()
    assert bool(three[1].any())


def test_without_steps_nothing_moves(tiny_decoder):
    space = Nudge(tiny_decoder)
    assert torch.equal(seek(steps=0)(tiny_decoder, space, QUESTIONS, given(space), 5), given(space))


def test_what_a_refiner_returns_is_checked_and_what_it_takes_is_counted(host, tiny_decoder):
    engine = host.make_env(
        "dlr/Toy-v0", num_envs=1, task="toy", decoder=tiny_decoder, space={"name": "kv", "num_latents": 2},
        max_new_tokens=4, host=host,
    ).unwrapped.engine  # fmt: skip
    evaluator, items = Evaluator(engine), [Item("Say something about 3.", "no gold is read", 0)]
    start = np.zeros((1, 2, 64), np.float32)
    latents, flops = evaluator.refined(items, start, seek(steps=1))
    assert latents.shape == start.shape
    assert flops > 0
    for broken in (lambda *given: given[3][:, :1], lambda *given: given[3] + 2, lambda *given: given[3] / 0):
        with pytest.raises(PluginError, match=r"expected latents of shape \(1, 2, 64\) in \[-1, 1\]"):
            evaluator.refined(items, start, broken)
