"""Training with several decodes per chain: what is learned from, counted and remembered."""

import pytest
import torch

from dlr_core.config import resolve
from dlr_core.errors import ConfigError
from dlr_core.pipeline import build_trainer

B, K, M = 2, 3, 4
WANTED = "".join(map(chr, range(48, 123)))


@pytest.fixture
def build(host, tiny_model):
    def make(estimator="pathwise_greedy", several=M, **tables):
        settings = {
            "env": "dlr/Toy-v0", "task": {"wanted": WANTED}, "steps": 2, "minutes": None, "loggers": [],
            "estimator": estimator,
            "assistant": {"name": "prior", "initial_scale": 0.4, "smallest_scale": 0.2},
            "decoder": {"model": str(tiny_model), "temperature": 1.0, "decodes_per_chain": several},
            "space": {"num_latents": 2, "latent_dim": 4, "chart": "random", "radius": 4.0},
            "batch": {"questions": B, "samples": K}, "probe": {"every": 0},
            "replay": {"chains": 4, "capacity": 64, "search": 0},
        }  # fmt: skip
        return build_trainer(resolve({**settings, **tables}, host), host)

    return make


def test_a_chain_is_worth_the_mean_of_its_completions(build):
    trainer = build()
    rollout = trainer.collector.collect(gold=False)
    batch, samples = rollout.batch, rollout.samples
    assert len(samples) == B * K * M
    reward = trainer.env.engine.reward
    rewards_BKM = torch.tensor([reward(sample) for sample in samples]).view(B, K, M)
    correct_BKM = torch.tensor([sample.correct * sample.format for sample in samples]).view(B, K, M)
    torch.testing.assert_close(batch.each.rewards_BKM, rewards_BKM)
    torch.testing.assert_close(batch.rewards_BK, rewards_BKM.mean(-1))
    torch.testing.assert_close(batch.correct_BK, correct_BKM.mean(-1))
    assert torch.equal(batch.each.correct_BKM, correct_BKM)
    texts = [sample.completion for sample in samples]
    for number, repeat in enumerate(batch.each.repeat_BKM.flatten().tolist()):
        start = number - number % (K * M)
        assert repeat == (texts[number] in texts[start:number])
    assert torch.equal(batch.repeat_BK, batch.each.repeat_BKM.all(-1))


def test_weights_are_of_completions_or_of_all_of_a_chains_together(build):
    trainer = build()
    batch = trainer.collector.collect(gold=False).batch
    latents = batch.chains.actions_NTD[batch.chosen_rows_N].detach()
    done, weigh = trainer.env.finished.completions, batch.weighted_completion_log_prob
    each_N = trainer.env.log_prob(latents.repeat_interleave(M, 0), done.ids_NL)
    weights_BKM = torch.arange(B * K * M, dtype=torch.float32).view(B, K, M) % 5
    torch.testing.assert_close(
        weigh(latents, weights_BKM), (each_N * weights_BKM.flatten()).sum(), rtol=1e-4, atol=1e-3
    )
    weights_BK = weights_BKM[..., 1]
    together = (each_N.view(B, K, M).sum(-1) * weights_BK).sum()
    torch.testing.assert_close(weigh(latents, weights_BK), together, rtol=1e-4, atol=1e-3)
    only = torch.zeros(B, K, M)
    only[1, 2, 3] = 1.0
    before = trainer.env.engine.decoder.usage.copy()
    torch.testing.assert_close(weigh(latents, only), each_N[-1], rtol=1e-4, atol=1e-3)
    spent = trainer.env.engine.decoder.usage.since(before)
    assert spent.logits == int(done.mask_NL[-1].sum())  # what weighs nothing costs nothing


@pytest.mark.parametrize("estimator", ["pathwise_greedy", "pathwise", "score", "hybrid"])
def test_every_estimator_learns_from_them_and_all_are_counted(build, estimator):
    trainer = build(estimator)
    before = [parameter.clone() for parameter in trainer.parameters]
    metrics = trainer.step()
    assert metrics["decodes"] == B * K * M
    assert metrics["tokens"] <= metrics["decoded"]
    assert metrics["tokens"] > B * K * M
    assert metrics["decode_spread"] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.parameters, strict=True))


def test_one_decode_logs_no_spread(build):
    assert "decode_spread" not in build(several=1).step()


def test_the_first_success_among_all_completions_of_a_question_is_remembered(build):
    trainer = build()
    trainer.step()
    done = trainer.env.finished
    expected = {}
    for sample, ids, mask in zip(done.samples, done.completions.ids_NL, done.completions.mask_NL, strict=True):
        if sample.correct and sample.format:
            expected.setdefault(sample.question, tuple(ids[mask.bool()].tolist()))
    assert {entry.item.question: entry.ids for entry in trainer.rehearsal.buffer.entries} == expected
    assert len(expected) > 1
    assert len(trainer.rehearsal.buffer.entries) == len(expected)
    assert set(trainer.rehearsal.frontier.waiting) == {item.question for item in done.items} - set(expected)


def test_greedy_decoding_has_nothing_to_marginalise(build):
    with pytest.raises(ConfigError) as caught:
        build(decoder={"decodes_per_chain": 4})
    assert caught.value.problems == (
        "decoder.decodes_per_chain=4: greedy decoding gives the same completion 4 times; "
        "set decoder.temperature above 0",
    )
