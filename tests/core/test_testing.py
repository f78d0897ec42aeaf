"""The conformance kit passes what keeps its contract and names the law that a part breaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dlr_plugins.decoders.hf import HFDecoder
from pydantic import BaseModel, ConfigDict

from dlr_core import API_VERSION, ConfigError, PluginHost
from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch, EnvSpec
from dlr_core.records import Item, Verdict
from dlr_core.splits import split_of
from dlr_core.testing import check_plugin


def offering(**parts):
    """A host with one plugin that registers ``kind=factory``."""
    host = PluginHost()
    hooks = {f"dlr_register_{kind}": hook(factory) for kind, factory in parts.items()}
    host.add(type("Offer", (), {"DLR_API_VERSION": API_VERSION, **hooks})(), "stranger")
    return host


def hook(factory):
    from dlr_core import hookimpl

    @hookimpl
    def offer(self, register):
        register("part", factory)

    return offer


def finding(**parts):
    (found,) = check_plugin(offering(**parts), "stranger")
    return found


def test_every_built_in_part_keeps_its_contract(tiny_decoder):
    host = PluginHost.from_entry_points()
    for entry in host.entries("task"):
        host._entries.pop(("task", entry.name))  # one wants a file, the other an argument
    for plugin in ("builtin", "envs"):
        for found in check_plugin(host, plugin, tiny_decoder):
            assert found.ok, f"{found.kind} {found.name}: {found.reason}"
            assert not found.reason or "needs peft" in found.reason or found.name == "remote"


class Linear(torch.nn.Module):
    """An assistant that keeps every law."""

    def __init__(self, hidden_size, num_latents, latent_dim):
        super().__init__()
        self.read = torch.nn.Linear(hidden_size, num_latents * latent_dim)
        self.shape = (num_latents, latent_dim)

    def policy(self, states, rows):
        mean = self.read(states[:, -1]).unflatten(-1, self.shape).repeat_interleave(rows // len(states), 0)
        return TanhGaussian(mean, torch.zeros_like(mean) - 1)

    def sample(self, states, mask, noise):
        policy = self.policy(states, len(noise))
        return ChainBatch(noise, policy, policy.mean + policy.log_std.exp() * noise)

    def evaluate(self, states, mask, pre):
        return self.policy(states, len(pre))


def broken_assistants():
    class Restless(Linear):
        """Draws noise of its own."""

        def sample(self, states, mask, noise):
            return super().sample(states, mask, torch.randn_like(noise))

    class Deaf(Linear):
        """Cuts the graph."""

        def sample(self, states, mask, noise):
            policy = self.policy(states, len(noise))
            mean = policy.mean.detach()
            return ChainBatch(noise, policy, mean + policy.log_std.exp() * noise)

    class Liar(Linear):
        """Has another density than it samples from."""

        def evaluate(self, states, mask, pre):
            policy = self.policy(states, len(pre))
            return TanhGaussian(policy.mean, policy.log_std + 0.5)

    class Crowded(Linear):
        """Looks at the other questions."""

        def policy(self, states, rows):
            return super().policy(states - states.mean(0, keepdim=True), rows)

    class Peeking(Linear):
        """Looks at padding."""

        def policy(self, states, rows):
            return super().policy(states.mean(1, keepdim=True), rows)

    class Short(Linear):
        """Writes too few latents."""

        def sample(self, states, mask, noise):
            chains = super().sample(states, mask, noise)
            return ChainBatch(noise, chains.policy, chains.pre_NTD[:, :1])

    return [
        (Restless, "same noise"), (Deaf, "gradients must flow"), (Liar, "log-probs of sampled latents"),
        (Crowded, "rest of the batch"), (Peeking, "masked positions"), (Short, "expected latents"),
    ]  # fmt: skip


def test_a_sound_assistant_passes():
    found = finding(assistant=Linear)
    assert found.ok, found.reason


@pytest.mark.parametrize(("factory", "law"), broken_assistants(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_assistant_fails_on_its_law(factory, law):
    found = finding(assistant=factory)
    assert not found.ok
    assert law in found.reason


class Loose:
    """A reward whose options take anything."""

    class Options(BaseModel):
        weight: float = 1.0

    def __init__(self, options):
        self.options = options

    def __call__(self, sample):
        return 1.0


class Fickle:
    """A reward that counts its calls."""

    calls = 0

    def __call__(self, sample):
        self.calls += 1
        return float(self.calls)


class Undescribed:
    def __call__(self, sample):
        return 1.0


class OutOfTheBox:
    """A control outside the box."""

    def __call__(self, latents, rng):
        return 2.0 * np.ones_like(latents)


class Overwriting:
    """A control that changes what it is given."""

    def __call__(self, latents, rng):
        latents *= 0.0
        return latents


class Attached:
    """A scorer whose prediction carries a graph."""

    def __init__(self, **shape):
        self.weight = torch.ones(1, requires_grad=True)

    def predict(self, states, mask, latents):
        return latents.mean((2, 3)) * self.weight

    def update(self, *outcome):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        return None


class Numb:
    """An estimator whose loss does not see the chains."""

    needs_completions, needs_gold, needs_sampling = True, False, False

    def __call__(self, batch):
        return torch.zeros((), requires_grad=True) * 1.0, {}


class Curious:
    """An estimator that says it needs no gradient of the main model, and asks for one."""

    needs_completions, needs_gold, needs_sampling, needs_gradient = True, False, False, False

    def __call__(self, batch):
        latents = batch.chains.actions_NTD[batch.chosen_rows_N]
        return -batch.weighted_completion_log_prob(latents, batch.correct_BK), {}


class Silent:
    """A logger without opinions."""

    def begin(self, run):
        pass

    def step(self, metrics):
        pass

    def end(self, summary):
        pass


class Meddling(Silent):
    """A logger that changes what it is told."""

    def step(self, metrics):
        metrics.pop("phases")


class Truthful(Silent):
    """A logger that says True for stop."""

    def step(self, metrics):
        return True


class Hopeful(Silent):
    """A logger that expects a reward in every step."""

    def step(self, metrics):
        return None if metrics["reward"] > -1 else "low"


class Forgetful(Silent):
    """A logger that needs at least one step."""

    def step(self, metrics):
        self.last = metrics["step"]

    def end(self, summary):
        self.last += 1


def test_a_sound_logger_passes():
    found = finding(logger=Silent)
    assert found.ok, found.reason


@pytest.mark.parametrize(
    ("kind", "factory", "law"),
    [
        ("logger", Meddling, "changed in place"),
        ("logger", Truthful, "expected None, or a reason"),
        ("logger", Hopeful, "TypeError"),
        ("logger", Forgetful, "AttributeError"),
        ("reward", Loose, "unknown options are accepted"),
        ("reward", Fickle, "two calls on one sample differ"),
        ("reward", Undescribed, "no docstring"),
        ("control", OutOfTheBox, "[-1, 1]"),
        ("control", Overwriting, "changed in place"),
        ("scorer", Attached, "detached"),
        ("estimator", Numb, "no gradient reaches the chains"),
        ("estimator", Curious, "needs_gradient is False, but"),
        ("env", lambda: {"task": "gcd"}, "docstring"),
    ],
)
def test_a_broken_part_fails_on_its_law(kind, factory, law):
    found = finding(**{kind: factory})
    assert not found.ok
    assert law in found.reason


class Sums:
    """Small sums."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")

        wrong_gold: bool = False
        by_parity: bool = False

    def __init__(self, options):
        self.options = options
        self.shelves = {"train": [], "validation": [], "test": []}
        for a in range(60):
            text = f"{a} + 1 ="
            split = ("train", "validation", "test")[a % 3] if options.by_parity else split_of(text)
            self.shelves[split].append(Item(text, str(a + 1), len(self.shelves[split])))

    def size(self, split):
        return len(self.shelves[split])

    def item(self, split, index):
        return self.shelves[split][index % len(self.shelves[split])]

    def gold_text(self, item):
        return "?" if self.options.wrong_gold else item.answer

    def score(self, item, completion, ended):
        return Verdict(completion or None, float(completion == item.answer), 1.0)


@pytest.mark.parametrize(
    ("changed", "law"),
    [({}, None), ({"wrong_gold": True}, "is not judged right"), ({"by_parity": True}, "another split by content")],
)
def test_tasks_are_split_by_content_and_know_their_answers(changed, law):
    class Variant(Sums):
        """Small sums."""

        def __init__(self, options):
            super().__init__(Sums.Options(**changed))

    found = finding(task=Variant)
    assert found.ok == (law is None)
    assert (law or "") in found.reason


def broken_decoders():
    class Moody(HFDecoder):
        """Its weights drift with every gradient."""

        def log_prob(self, *given):
            found = super().log_prob(*given)
            if found.requires_grad:
                self.model.lm_head.weight.data.mul_(1.0001)
            return found

    class Crowded(HFDecoder):
        """A prompt's states depend on how many there are."""

        def prefill(self, questions, *rest):
            cache = super().prefill(questions, *rest)
            return replace(cache, states_NSH=cache.states_NSH * len(questions))

    class Greedy(HFDecoder):
        """Never samples."""

        def decode(self, cache, count, temperature=0.0, generators=None, **asked):
            return super().decode(cache, count, **asked)

    class Sharing(HFDecoder):
        """Draws for all rows from the first one's generator."""

        def decode(self, cache, count, temperature=0.0, generators=None, **asked):
            return super().decode(cache, count, temperature, generators and [generators[0]] * cache.rows, **asked)

    class Spending(HFDecoder):
        """Writes into the cache that it was given."""

        def decode(self, cache, *rest, **asked):
            done = super().decode(cache, *rest, **asked)
            cache.pending_NPH.mul_(1.0001)
            return done

    class Repeating(HFDecoder):
        """Calls completions different that need not be."""

        def decode_distinct(self, cache, counts, limit, generators, openings=None):
            rows_N = torch.arange(cache.rows).repeat_interleave(torch.tensor(counts))
            return super().decode(cache.select(rows_N), limit)

    class Mean(HFDecoder):
        """Takes the mean over tokens for a likelihood."""

        def log_prob(self, cache, ids, mask, temperature=1.0):
            return super().log_prob(cache, ids, mask, temperature) / mask.sum(1)

    class Free(HFDecoder):
        """Counts no likelihoods."""

        def log_prob(self, *given):
            before = self.usage.copy()
            found = super().log_prob(*given)
            self.usage.scored = before.scored
            return found

    return [
        (Moody, "frozen model was changed"), (Crowded, "rest of the batch"), (Greedy, "must be sampled"),
        (Sharing, "its own generator"), (Spending, "changed in place"), (Mean, "sum over the tokens"),
        (Free, "must be counted"), (Repeating, "are the same"),
    ]  # fmt: skip


@pytest.mark.parametrize(("factory", "law"), broken_decoders(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_decoder_fails_on_its_law(factory, law):
    found = finding(decoder=factory)
    assert not found.ok
    assert law in found.reason


def test_a_specification_and_an_unknown_plugin():
    def spec() -> EnvSpec:
        """Toy."""
        return EnvSpec("toy", {}, 0)

    assert "must be positive" in finding(env=spec).reason
    with pytest.raises(ConfigError, match="no loaded plugin named 'nobody'"):
        check_plugin(offering(env=spec), "nobody")


class Asking(torch.nn.Module):
    """An objective that reads what the frozen model is asked."""

    asks_model = True

    def __init__(self, hidden_size, num_latents, latent_dim):
        super().__init__()

    def forward(self, batch):
        main = batch.main
        cache = main.cache.select(main.rows_B)
        ready = main.space.inject(cache, batch.chains.actions_NTD[:: batch.group_size])
        done = main.decoder.decode(ready, main.max_new_tokens)
        right = main.verify(range(len(main.questions)), done)
        return -(main.decoder.log_prob(ready, done.ids_NL, done.mask_NL) * right).sum(), {"right": float(right.sum())}


def test_what_asks_the_frozen_model_is_checked_with_one_or_not_at_all(tiny_decoder):
    found = finding(contrastive=Asking)
    assert found.ok
    assert found.reason == "not checked: it needs a main model"
    (found,) = check_plugin(offering(contrastive=Asking), "stranger", tiny_decoder)
    assert found.ok
    assert not found.reason


def test_an_objective_that_changes_the_frozen_model_fails(tiny_model):
    class Meddler(Asking):
        """Trains what it must not."""

        def forward(self, batch):
            with torch.no_grad():
                batch.main.decoder.embedding_table()[0] += 1e-3
            return super().forward(batch)

    own = PluginHost.from_entry_points().create("decoder", "hf", {"model": str(tiny_model)})
    (found,) = check_plugin(offering(contrastive=Meddler), "stranger", own)
    assert found.reason == "the frozen model was changed"
