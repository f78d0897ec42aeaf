"""The `laser` objective: its teacher is the plain model after its own right reasoning, its pupil the latents."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from dlr_plugins.contrastive.bidirectional import Bidirectional
from dlr_plugins.contrastive.laser import LaSER, divergence, latent_steps

from dlr_core.errors import PluginError
from dlr_core.pipeline import build_trainer
from dlr_core.testing import toy

SOME = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]  # chains; the toy's model is right about the first and the last question
NONE = [[0.0, 0.0]] * 3


def build(**options):
    torch.manual_seed(0)
    settings = {"opening": "Let me see:", "tokens": 6, "places": 2, "reasoning_temperature": 1.0, **options}
    return LaSER(LaSER.Options(**settings), **toy.SHAPE)


def test_divergence_is_the_mean_kl_over_masked_places():
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(2, 3, 5, generator=generator).log_softmax(-1) for _ in range(2))
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    expected = sum(
        float(p.exp() * (p - q))
        for m, place in ((0, 0), (0, 1), (1, 0))
        for p, q in zip(teacher[m, place], student[m, place], strict=True)
    )
    assert float(divergence(teacher, student, mask)) == pytest.approx(expected / 3, rel=1e-5)
    assert float(divergence(teacher, teacher, mask)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("latents", "places", "expected"),
    [(8, 3, [2, 4, 6]), (8, 2, [3, 5]), (3, 2, [1, 2]), (2, 3, [1]), (1, 3, []), (8, 0, [])],
)
def test_latent_steps_are_spread_evenly_between_the_ends(latents, places, expected):
    assert latent_steps(latents, places) == expected


@torch.no_grad()
def test_the_teacher_is_the_plain_model_that_reads_question_reasoning_and_anchor(tiny_decoder):
    batch, _ = toy.batch(SOME, tiny_decoder)
    objective, written = build(), []
    decode = tiny_decoder.decode

    def spy(cache, limit, *more, **settings):
        written.append(decode(cache, limit, *more, **settings))
        return written[-1]

    tiny_decoder.decode = spy
    try:
        taught, share = objective.explicit(batch.main)
    finally:
        del tiny_decoder.decode
    reasoning, answers = written
    assert reasoning.ids_NL.shape[1] <= 6
    assert len(set(reasoning.texts)) > 3
    assert (taught.attempts, share) == ([0, 1, 4, 5], pytest.approx(4 / 6))
    for m, attempt in enumerate(taught.attempts):
        asked = tiny_decoder.prompt_ids(toy.TEXTS[attempt // 2]) + tiny_decoder.encode("Let me see:")
        thought, answer = tiny_decoder.encode(reasoning.texts[attempt]), taught.ids_ML[m][taught.mask_ML[m].bool()]
        assert torch.equal(answer, answers.ids_NL[attempt][answers.mask_NL[attempt].bool()])
        prompt = [*asked, *thought, *batch.main.space.anchor_ids, *batch.main.space.pending_ids]
        logits = tiny_decoder.model(torch.tensor([[*prompt, *answer.tolist()]])).logits[0].log_softmax(-1)
        said = logits[len(prompt) - 1 : -1]
        torch.testing.assert_close(taught.said_MLV[m, : len(said)], said, atol=2e-3, rtol=1e-3)
        assert said.argmax(-1).tolist() == answer.tolist()  # its own greedy answer
        places = [len(asked) - 1 + round(len(thought) * step / 3) for step in (1, 2)]
        torch.testing.assert_close(taught.passed_MPV[m], logits[places], atol=2e-3, rtol=1e-3)


def test_the_pupil_is_the_model_under_a_chain_of_the_same_question(tiny_decoder):
    batch, leaf = toy.batch(SOME, tiny_decoder)
    objective = build(tries=3)
    taught, _ = objective.explicit(batch.main)
    output, trajectory = objective.divergences(batch, batch.main, taught)
    main, kl_said, kl_passed = batch.main, [], []
    for m, attempt in enumerate(taught.attempts):
        question, chain = attempt // 3, (0, 2, 0)[attempt % 3]  # two chains of each question were decoded
        latents = leaf[4 * question + chain][None].detach().tanh()
        cache, answer = main.cache.select(torch.tensor([question])), taught.ids_ML[m][taught.mask_ML[m].bool()]
        one = []
        for t in range(len(answer)):  # token by token: the log-probability of every next one
            ids = torch.stack([torch.cat([answer[:t], torch.tensor([v])]) for v in range(taught.said_MLV.shape[2])])
            last = torch.zeros(ids.shape)
            last[:, -1] = 1.0
            rows = cache.select(torch.zeros(len(ids), dtype=torch.long))
            one.append(tiny_decoder.log_prob(main.space.inject(rows, latents.expand(len(ids), -1, -1)), ids, last))
        path = [tiny_decoder.logits(main.space.observe(cache, latents[:, :t])[:, None])[0, 0] for t in (1, 2)]
        said = taught.said_MLV[m, : len(answer)]
        kl_said += (said.exp() * (said - torch.stack(one).detach())).sum(-1).tolist()
        passed = taught.passed_MPV[m]
        kl_passed += (passed.exp() * (passed - torch.stack(path).detach().log_softmax(-1))).sum(-1).tolist()
    assert float(output.detach()) == pytest.approx(sum(kl_said) / len(kl_said), rel=2e-3)
    assert float(trajectory.detach()) == pytest.approx(sum(kl_passed) / len(kl_passed), rel=2e-3)


def test_the_loss_is_the_contrast_and_the_weighted_divergences(tiny_decoder):
    parts = {}
    for output, trajectory in ((0.0, 0.0), (0.7, 0.0), (0.0, 0.3), (0.7, 0.3)):
        loss, logs = build(output_weight=output, trajectory_weight=trajectory)(toy.batch(SOME, tiny_decoder)[0])
        parts[output, trajectory] = float(loss.detach())
    torch.manual_seed(0)
    contrast, _ = Bidirectional(Bidirectional.Options(), **toy.SHAPE)(toy.batch(SOME)[0])
    assert parts[0.0, 0.0] == pytest.approx(float(contrast.detach()), rel=1e-5)
    assert parts[0.7, 0.0] - parts[0.0, 0.0] == pytest.approx(0.7 * logs["distil"], rel=1e-3)
    assert parts[0.0, 0.3] - parts[0.0, 0.0] == pytest.approx(0.3 * logs["trajectory"], rel=1e-3)
    assert parts[0.7, 0.3] == pytest.approx(parts[0.7, 0.0] + parts[0.0, 0.3] - parts[0.0, 0.0], rel=1e-3)
    assert min(logs["distil"], logs["trajectory"]) > 1e-3


def test_following_its_gradient_brings_the_latents_to_the_teacher_and_only_those_of_taught_questions(tiny_decoder):
    batch, leaf = toy.batch(SOME, tiny_decoder)
    objective = build(weight=0.0, trajectory_weight=1.0)
    taught, _ = objective.explicit(batch.main)
    found = []
    for _ in range(12):
        chains = replace(batch.chains, pre_NTD=leaf)
        both = objective.divergences(replace(batch, chains=chains), batch.main, taught)
        (slope,) = torch.autograd.grad(sum(both), leaf)
        moved = slope.abs().amax((1, 2)) > 0
        assert moved.nonzero()[:, 0].tolist() == [0, 2, 8, 10]  # decoded chains of the first and the last question
        found.append([float(part.detach()) for part in both])
        leaf = (leaf - 0.2 * slope / slope.abs().max()).detach().requires_grad_()
    assert sum(found[-1]) < 0.9 * sum(found[0])


def test_where_no_reasoning_leads_anywhere_the_contrast_is_left(tiny_decoder):
    loss, logs = build()(toy.batch(NONE, tiny_decoder)[0])
    torch.manual_seed(0)
    contrast, own = Bidirectional(Bidirectional.Options(), **toy.SHAPE)(toy.batch(NONE)[0])
    assert float(loss.detach()) == pytest.approx(float(contrast.detach()), rel=1e-5)
    assert logs == {**own, "explicit_correct": 0.0}


def test_reasoning_comes_from_the_runs_generator_alone(tiny_decoder):
    def losses(seed):
        batch, _ = toy.batch(SOME, tiny_decoder)
        batch.main.generator.manual_seed(seed)
        objective = build()
        return [float(objective(batch)[0].detach()) for _ in range(2)]

    first = losses(1)
    torch.manual_seed(99)
    assert losses(1) == first
    assert first[0] != first[1]
    assert losses(2) != first


def test_what_the_teacher_thought_is_never_changed(tiny_decoder):
    taught, _ = build().explicit(toy.batch(SOME, tiny_decoder)[0].main)
    with pytest.raises(FrozenInstanceError):
        taught.attempts = []


def test_each_reasoning_has_a_seed_of_its_own_out_of_very_many(tiny_decoder, monkeypatch):
    seeds, make = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or make(seed))
    objective = build()
    for _ in range(3):
        objective.explicit(toy.batch(SOME, tiny_decoder)[0].main)
    assert {number for _, number in seeds} == set(range(6))
    assert max(seed for seed, _ in seeds) > 2**16


def test_no_places_no_trajectory(tiny_decoder):
    _, logs = build(places=0)(toy.batch(SOME, tiny_decoder)[0])
    assert logs["trajectory"] == 0.0
    assert logs["distil"] > 1e-3


def test_a_batch_without_the_frozen_model_is_refused():
    with pytest.raises(PluginError, match="laser asks the frozen model"):
        build()(toy.batch(SOME)[0])


@pytest.mark.parametrize("space", ["kv", "coconut"])
def test_a_run_is_taught_on_its_own_questions_by_the_verifier_alone(host, tiny_model, space):
    from dlr_core.config import resolve

    config = resolve(
        {
            "env": "dlr/Toy-v0", "steps": 1, "minutes": None,
            "contrastive": {"name": "laser", "tokens": 5, "weight": 0.0},
            "task": {"wanted": "0123456789"}, "decoder": {"model": str(tiny_model)},
            "space": {"name": space, "num_latents": 4, "latent_dim": 4, "anchor": "So:"},
            "assistant": {"name": "mlp", "width": 8}, "batch": {"questions": 3, "samples": 2},
            "replay": {"chains": 0}, "probe": {"every": 0},
        },
        host,
    )  # fmt: skip
    trainer = build_trainer(config, host)
    items, asked = list(trainer.env.groups), []
    score = trainer.env.engine.task.score

    def spy(item, completion, ended):
        asked.append(item.question)
        return score(item, completion, ended)

    batch = trainer.collector.collect(gold=False).batch
    trainer.env.engine.task.score = spy
    loss, logs = trainer.contrastive(batch)
    assert asked == [item.question for item in items for _ in range(2)]  # although the environment has moved on
    assert batch.main.questions == [item.question for item in items]
    assert logs["explicit_correct"] > 0
    loss.backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in trainer.space.trainable())
    assert any(bool(weight.grad.any()) for weight in trainer.assistant.parameters() if weight.grad is not None)
    assert not any(weight.requires_grad for weight in trainer.env.engine.decoder.model.parameters())
