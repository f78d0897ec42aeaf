"""The `decisive` reward, and the entropies that it reads."""

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
import pytest
import torch
from dlr_plugins.rewards.decisive import Decisive
from dlr_plugins.rewards.dual import Dual

from dlr_core import PluginHost
from dlr_core.config import resolve
from dlr_core.errors import ConfigError
from dlr_core.pipeline import build_trainer
from dlr_core.questions import distinct_items
from dlr_core.records import Sample
from dlr_core.traces import trace

QUESTIONS = ["What is 2 + 2?", "Hi", "3 * 4 ="]


def sample(entropy):
    return Sample("1 + 2 =", "3", " 3", "3", 1.0, 1.0, 2, True, entropy)


def test_it_is_the_dual_reward_less_the_weighted_entropy():
    reward = Decisive(Decisive.Options(entropy_weight=0.2, format_weight=0.3))
    assert reward(sample(0.0)) == Dual(Dual.Options(format_weight=0.3))(sample(0.0)) == pytest.approx(1.3)
    assert reward(sample(1.5)) == pytest.approx(1.3 - 0.3)


def test_only_decisive_asks_a_decoder_for_entropies():
    assert Decisive.needs_entropy
    assert not getattr(Dual, "needs_entropy", False)


def test_a_decoder_that_reports_no_entropy_is_refused():
    with pytest.raises(ConfigError, match="entropy_N"):
        Decisive(Decisive.Options())(sample(None))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_completions_entropy_is_that_of_the_models_own_distributions(tiny_decoder, temperature, monkeypatch):
    monkeypatch.setattr(tiny_decoder, "end_ids", torch.tensor(tiny_decoder.encode("56789")))
    cache = tiny_decoder.prefill(QUESTIONS, [], tiny_decoder.encode("="), 0)
    done = tiny_decoder.decode(cache, 30, temperature, [np.random.default_rng(row) for row in range(3)], entropy=True)
    assert tiny_decoder.decode(cache, 2).entropy_N is None  # nobody asked
    assert len(set(done.mask_NL.sum(1).tolist())) > 1  # rows that end early are dropped from the batch
    for row, question in enumerate(QUESTIONS):
        message = [{"role": "user", "content": question}]
        prompt = tiny_decoder.tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        prompt = [*prompt, *tiny_decoder.encode("=")]
        ids = done.ids_NL[row][done.mask_NL[row].bool()]
        with torch.no_grad():
            logits = tiny_decoder.model(torch.tensor([[*prompt, *ids.tolist()]])).logits[0, len(prompt) - 1 : -1]
        expected = torch.distributions.Categorical(logits=logits).entropy().mean()
        torch.testing.assert_close(done.entropy_N[row], expected, rtol=1e-3, atol=1e-4)


def test_a_run_under_it_is_rewarded_by_what_the_decoder_reports(tiny_model):
    space = {"name": "kv", "num_latents": 2, "latent_dim": 4, "anchor": "a b c"}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=3, decoder=str(tiny_model), space=space,
        reward={"name": "decisive", "entropy_weight": 0.5, "format_weight": 0.0},
    )  # fmt: skip
    env.reset(seed=0)
    _, rewards, *_ = env.step(np.zeros(env.action_space.shape, np.float32))
    done = env.unwrapped.finished
    assert all(sample.entropy > 0 for sample in done.samples)
    assert rewards == pytest.approx([sample.correct - 0.5 * sample.entropy for sample in done.samples], rel=1e-5)


def test_a_trace_of_such_a_run_has_its_reward(tiny_model):
    """Traces decode by themselves, after the training: the reward must be told the entropy there too."""
    host = PluginHost.from_entry_points()
    settings = {
        "steps": 1, "decoder": {"model": str(tiny_model)}, "space": {"name": "kv", "num_latents": 2, "latent_dim": 4},
        "reward": {"name": "decisive", "entropy_weight": 0.5, "format_weight": 0.0}, "replay": {"chains": 0},
    }  # fmt: skip
    trainer = build_trainer(resolve(settings, host), host)
    engine = trainer.env.engine
    rows = trace(engine, trainer.assistant, distinct_items(engine.task, "validation", 2))
    assert all(row["reward"] < row["correct"] for row in rows)
