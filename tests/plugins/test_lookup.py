"""Drafting from the prompt changes how many passes a completion takes, and nothing else."""

import dlr_envs  # noqa: F401
import gymnasium
import numpy as np
import pytest
import torch
from dlr_plugins.decoders.lookup import look_up

from dlr_core.config import resolve
from dlr_core.cost import total_cost
from dlr_core.errors import ConfigError
from dlr_core.pipeline import build_trainer
from dlr_core.stacking import stack

QUESTIONS = ["What is 2 + 2?", "Hi", "11 12 11 12 11 12 11", "3 * 4 =", "Say 777777 again.", "0 0 0 0 0 0 0 0"]
NEAR_TIE = 1e-3
LIMIT = 24


@pytest.fixture(scope="module", params=["tiny_model", "tiny_gpt2"])
def pair(request):
    """The plain decoder and the one that drafts, of one model."""
    from dlr_core import PluginHost

    host, model = PluginHost.from_entry_points(), str(request.getfixturevalue(request.param))
    return tuple(host.create("decoder", name, {"model": model}) for name in ("hf", "lookup"))


def prompts(decoder, questions=QUESTIONS):
    anchor = decoder.encode(" Let me")
    return decoder.prefill(questions, anchor[:-1], anchor[-1:], 2)


def rows_of(done):
    return [ids[mask.bool()].tolist() for ids, mask in zip(done.ids_NL, done.mask_NL, strict=True)]


def agree(plain, cache, one, other):
    """Equal token ids, or apart where the two best logits are practically equal."""
    for row, (x, y) in enumerate(zip(rows_of(one), rows_of(other), strict=True)):
        if x == y:
            continue
        same = next(place for place, (a, b) in enumerate(zip(x, y, strict=False)) if a != b)
        ids = torch.tensor([x[: same + 1], y[: same + 1]])
        last = torch.zeros(ids.shape)
        last[:, -1] = 1.0
        chance = plain.log_prob(cache.select(torch.tensor([row, row])), ids, last)
        assert float((chance[0] - chance[1]).abs()) < NEAR_TIE, f"row {row}: {x} and {y}"


@pytest.mark.parametrize("ngram", [1, 3])
@pytest.mark.parametrize("draft", [1, 8])
def test_greedy_completions_are_those_of_hf_in_fewer_passes(pair, draft, ngram, monkeypatch):
    plain, drafting = pair
    monkeypatch.setattr(drafting, "draft", draft)
    monkeypatch.setattr(drafting, "ngram", ngram)
    expected = plain.decode(prompts(plain), LIMIT)
    before = drafting.usage.copy()
    done = drafting.decode(prompts(drafting), LIMIT)
    spent = drafting.usage.since(before)
    agree(plain, prompts(plain), expected, done)
    assert done.texts == expected.texts
    assert torch.equal(done.ended_N, expected.ended_N)
    assert torch.equal(done.mask_NL, expected.mask_NL)
    longest = int(done.mask_NL.sum(1).max())
    assert spent.forwards + spent.forwards_saved == longest
    assert spent.forwards_saved > 0
    assert 0 < spent.accepted <= spent.drafted
    assert spent.accepted >= spent.forwards_saved


def test_rows_that_guess_differently_well_are_what_each_is_alone(pair):
    _, drafting = pair
    cache, accepted = prompts(drafting), []
    together = drafting.decode(cache, LIMIT)
    for row in range(len(QUESTIONS)):
        before = drafting.usage.copy()
        alone = drafting.decode(cache.select(torch.tensor([row])), LIMIT)
        spent = drafting.usage.since(before)
        accepted.append(spent.accepted)
        assert rows_of(alone)[0] == rows_of(together)[row]
        # alone, every guess that was right has saved a pass, and nothing else has
        assert spent.forwards_saved == spent.accepted
        assert spent.forwards + spent.accepted == len(rows_of(alone)[0])
    assert len(set(accepted)) > 2


@pytest.mark.parametrize("temperature", [0.02, 1.0])
def test_sampled_tokens_are_those_of_hf_with_equal_generators(pair, temperature):
    plain, drafting = pair
    cache = prompts(plain).select(torch.arange(len(QUESTIONS)).repeat_interleave(6))
    known = prompts(drafting).select(torch.arange(len(QUESTIONS)).repeat_interleave(6))

    def generators():
        return [np.random.default_rng(row) for row in range(cache.rows)]

    before = drafting.usage.copy()
    done = drafting.decode(known, LIMIT, temperature, generators())
    spent = drafting.usage.since(before)
    assert rows_of(done) == rows_of(plain.decode(cache, LIMIT, temperature, generators()))
    assert spent.drafted > 0
    assert temperature == 1.0 or 0 < spent.accepted < spent.drafted
    with pytest.raises(ConfigError, match="one generator per row: expected 36"):
        drafting.decode(known, 2, temperature, generators()[1:])


def test_a_generator_is_left_where_hf_leaves_it(pair):
    plain, drafting = pair
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    row = torch.tensor([5])
    drafting.decode(prompts(drafting).select(row), LIMIT, 0.02, [ours])
    plain.decode(prompts(plain).select(row), LIMIT, 0.02, [theirs])
    assert ours.random() == theirs.random()


def test_entropy_is_reported_as_hf_does(pair):
    plain, drafting = pair
    expected = plain.decode(prompts(plain), LIMIT, entropy=True)
    done = drafting.decode(prompts(drafting), LIMIT, entropy=True)
    torch.testing.assert_close(done.entropy_N, expected.entropy_N, atol=1e-3, rtol=1e-3)
    assert drafting.decode(prompts(drafting), 2).entropy_N is None


def test_every_position_fed_is_on_the_account(pair, monkeypatch):
    _, drafting = pair
    fed, heads = [], []
    own = drafting.model.forward

    def forward(*args, **kwargs):
        fed.append(kwargs["inputs_embeds"].shape[:2].numel())
        heads.append(kwargs["inputs_embeds"].shape[0] * kwargs["logits_to_keep"])
        return own(*args, **kwargs)

    cache = prompts(drafting)
    monkeypatch.setattr(drafting.model, "forward", forward)
    before = drafting.usage.copy()
    drafting.decode(cache, LIMIT)
    spent = drafting.usage.since(before)
    assert (spent.forwards, spent.decoded, spent.logits) == (len(fed), sum(fed), sum(heads))


def test_decoding_leaves_the_cache_as_it_was(pair):
    _, drafting = pair
    cache = prompts(drafting)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values, cache.mask_NS, cache.pending_NPH)]
    first, second = drafting.decode(cache, LIMIT), drafting.decode(cache, LIMIT)
    after = [*cache.keys, *cache.values, cache.mask_NS, cache.pending_NPH]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert torch.equal(first.ids_NL, second.ids_NL)


def test_prompts_know_their_ids_wherever_they_go(pair):
    _, drafting = pair
    cache = prompts(drafting, ["One and two", "Hi"])

    def ids(given, row):
        return given.ids_NS[row][given.mask_NS[row].bool()].tolist()

    anchor = drafting.encode(" Let me")
    for row, question in enumerate(["One and two", "Hi"]):
        text = [*drafting.prompt_ids(question), *anchor[:-1]]
        assert ids(cache, row) == text
        assert ids(cache.select(torch.tensor([1, row])), 1) == text
        assert ids(cache.crop(cache.mask_NS.shape[1] - 2), row) == text[:-2]
        single = [cache.select(torch.tensor([number])) for number in (row, 0)]
        assert ids(stack([single[0], prompts(drafting, ["A much longer question than those"])]), 0) == text
    grown = drafting.grow(cache, cache.pending_NPH)
    assert grown.ids_NS.shape == grown.mask_NS.shape
    assert grown.ids_NS[:, -1].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("known", "written", "ngram", "count", "expected"),
    [
        ([1, 2, 3, 4, 9], [1, 2], 3, 8, [3, 4, 9]),  # up to where the prompt ends
        ([1, 2, 3, 4, 9], [1, 2], 3, 2, [3, 4]),
        ([7, 2, 5, 1, 2, 3], [1, 2], 3, 1, [3]),  # two tokens say more than one
        ([7, 2, 5, 1, 2, 3], [1, 2], 1, 1, [5]),  # of one token, the first place
        ([4, 4], [1, 2, 3, 1, 2], 2, 8, [3, 1, 2]),  # the completion repeats itself
        ([5], [8, 8, 8], 2, 8, [8]),
        ([1, 2, 0, 4], [2], 2, 8, []),  # an end token is never guessed
        ([1, 2], [2], 2, 8, []),  # nothing is known to follow
        ([1, 2, 3], [9], 2, 8, []),
        ([1, 2, 3], [1], 2, 0, []),
        ([], [5], 2, 8, []),
    ],
)
def test_guesses_by_hand(known, written, ngram, count, expected):
    assert look_up(known, written, ngram, count, {0}) == expected


def test_a_guess_does_not_reach_over_what_is_unknown():
    assert look_up([1, 2], [3, 1, 2], 2, 8, set()) == []
    assert look_up([1, 2], [3, 2], 1, 8, set()) == []
    assert look_up([8, 3, -1, 8, 9], [8], 2, 8, set()) == [3]  # two unknowns are no match


@pytest.mark.parametrize("space", ["kv", "input", "vocab", "steer"])
def test_episodes_are_those_of_hf(tiny_model, space):
    task = {"task": "reasoning-gym:chain_sum", "task_kwargs": {"pool": 64}, "max_new_tokens": 12}
    kwargs = {**task, "space": space, "num_latents": 2, "latent_dim": 4}
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 8))
    texts = []
    for name in ("hf", "lookup"):
        decoder = {"name": name, "model": str(tiny_model)}
        env = gymnasium.make_vec("dlr/Reasoning-v0", num_envs=6, decoder=decoder, **kwargs)
        env.reset(seed=0)
        env.step(actions)
        texts.append(env.finished.completions.texts)
    assert env.engine.decoder.usage.accepted > 0
    assert texts[0] == texts[1]


def test_a_run_takes_its_options_and_counts_what_was_saved(host, tiny_model):
    settings = {
        "env": "dlr/Toy-v0", "steps": 2, "minutes": None, "loggers": [], "assistant": "prior",
        "decoder": {"name": "lookup", "model": str(tiny_model), "max_new_tokens": 12, "draft": 4},
        "space": {"num_latents": 2, "latent_dim": 4}, "batch": {"questions": 2, "samples": 2},
    }  # fmt: skip
    config = resolve(settings, host)
    assert config.decoder.options == {
        "model": str(tiny_model), "device": "auto", "dtype": "auto", "draft": 4, "ngram": 3, "weights": "full",
        "device_map": "none", "max_memory": {}, "offload_folder": "", "packed": True, "products": "float32",
        "scored_at_once": 0,
    }  # fmt: skip
    trainer = build_trainer(config, host)
    assert trainer.env.engine.decoder.draft == 4
    rows = list(trainer.run())
    total = total_cost(rows)
    assert total["accepted"] == sum(row["accepted"] for row in rows) > 0
    assert {"forwards", "forwards_saved", "drafted"} <= total.keys()
    assert "accepted" not in total_cost([{"main_flops": 1}])


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"name": "lookup", "draft": 0}, "decoder 'lookup': draft: Input should be greater than or equal to 1, got 0"),
        ({"name": "lookup", "drafts": 3}, "config: no option named 'decoder.drafts'; did you mean 'decoder.draft'?"),
        ({"draft": 3}, "config: no option named 'decoder.draft'"),
        ({"temprature": 1.0}, "config: no option named 'decoder.temprature'; did you mean 'decoder.temperature'?"),
    ],
)
def test_a_decoders_options_are_validated_before_anything_is_loaded(host, decoder, message):
    with pytest.raises(ConfigError) as caught:
        resolve({"decoder": decoder}, host)
    assert message in str(caught.value)
