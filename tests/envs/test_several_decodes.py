"""Several decodes per chain: the reward is their mean, the account is of all of them, and one decode is as before."""

import gymnasium
import numpy as np
import pytest
import torch
from dlr_envs.checker import check_latent_env
from dlr_envs.sb3 import SB3VecEnv

from dlr_core.errors import ConfigError

T, D, M = 2, 4, 3
WANTED = "".join(map(chr, range(48, 123)))
ID = "dlr/Reasoning-v0"


@pytest.fixture
def make(tiny_model, host):
    def vector(num_envs=4, several=M, build=gymnasium.make_vec, **more):
        kwargs = {
            "task": "toy", "task_kwargs": {"wanted": WANTED}, "host": host, "decoder": str(tiny_model),
            "num_latents": T, "latent_dim": D, "max_new_tokens": 6, "temperature": 1.0,
            "space": {"name": "kv", "chart": "random"},
        }  # fmt: skip
        sizes = {"num_envs": num_envs} if build is gymnasium.make_vec else {}
        return build(ID, **sizes, **{**kwargs, "decodes_per_chain": several, **more})

    return vector


def chains(rows, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, T * D)).astype(np.float32)


def test_the_reward_is_the_mean_over_a_chains_completions(make):
    env = make()
    env.reset(seed=0)
    _, rewards, _, _, info = env.step(chains(4))
    done, final = env.finished, info["final_info"]
    each = np.array([env.engine.reward(sample) for sample in done.samples]).reshape(4, M)
    np.testing.assert_allclose(rewards, each.mean(1), rtol=1e-6)
    assert len({tuple(row) for row in each.tolist()}) > 1
    for row in range(4):
        samples = done.samples[row * M : (row + 1) * M]
        assert {sample.question for sample in samples} == {final["question"][row]}
        assert final["completions"][row] == tuple(sample.completion for sample in samples)
        assert final["completion"][row] == samples[0].completion
        assert final["tokens"][row] == sum(sample.tokens for sample in samples)
        assert final["correct"][row] == pytest.approx(np.mean([sample.correct for sample in samples]))
    assert len(set(done.completions.texts)) > 4


def test_every_completion_is_on_the_account(make):
    env = make()
    env.reset(seed=0)
    before = env.engine.decoder.usage.copy()
    env.step(chains(4))
    spent = env.engine.decoder.usage.since(before)
    tokens = sum(sample.tokens for sample in env.finished.samples)
    assert len(env.finished.samples) == 4 * M
    # the trigger makes the first token, and each token but a row's last is fed
    assert spent.logits == tokens == spent.decoded


def test_one_decode_is_drawn_from_the_episodes_own_generator(make):
    env = make(several=1)
    env.reset(seed=0)
    engine, actions = env.engine, chains(4)
    twins = [np.random.default_rng() for _ in range(4)]
    for twin, own in zip(twins, env.generators, strict=True):
        twin.bit_generator.state = own.bit_generator.state
    cache, rows = engine.cache, engine.rows_N
    _, _, _, _, info = env.step(actions)
    ready = engine.space.inject(cache.select(rows), torch.tensor(actions).view(4, T, D))
    assert engine.decoder.decode(ready, 6, 1.0, twins).texts == env.finished.completions.texts
    assert "completions" not in info["final_info"]


def test_a_chains_completions_depend_on_its_own_seed_alone(make):
    env = make()

    def texts(seeds):
        env.reset(seed=seeds, options={"index": [0, 1, 2, 3]})
        env.step(chains(4))
        return np.array(env.finished.completions.texts).reshape(4, M).tolist()

    one, other = texts([1, 2, 3, 4]), texts([1, 2, 3, 99])
    assert one[:3] == other[:3]
    assert one[3] != other[3]
    assert one == texts([1, 2, 3, 4])


def test_a_batch_gives_what_single_environments_give(make):
    kwargs = {key: value for key, value in make().spec.kwargs.items() if key not in ("num_envs", "vectorization_mode")}
    report = check_latent_env(ID, episodes=3, **kwargs)
    assert report.completions == 9
    single = make(build=gymnasium.make)
    single.reset(seed=0)
    info = single.step(chains(1)[0])[4]
    assert len(info["completions"]) == M


def test_more_decodes_give_the_same_mean_and_less_noise(make):
    rows, action = 120, chains(1)

    def rewards(several):
        env = make(num_envs=rows, several=several, max_new_tokens=1)
        env.reset(seed=5, options={"group_size": rows, "index": [0]})
        return env.step(np.repeat(action, rows, 0))[1]

    one, many = rewards(1), rewards(5)
    error = (one.var() / rows + many.var() / rows) ** 0.5
    assert one.std() > 0.1
    assert abs(one.mean() - many.mean()) < 4.5 * error
    assert many.std() < 0.6 * one.std()


def test_log_probs_are_those_of_each_completion_under_its_chain(make):
    env = make()
    env.reset(seed=0)
    env.step(chains(4))
    engine, done = env.engine, env.finished
    latents = torch.tensor(chains(4)).view(4, T, D)
    every = latents.repeat_interleave(M, 0).requires_grad_()
    got = env.log_prob(every, done.completions.ids_NL)
    for row in range(4):
        ready = engine.space.inject(done.cache.select(done.rows_N[[row] * M]), latents[[row] * M])
        part = slice(row * M, (row + 1) * M)
        own = engine.decoder.log_prob(ready, done.completions.ids_NL[part], done.completions.mask_NL[part])
        torch.testing.assert_close(got[part], own, atol=1e-3, rtol=1e-3)
    some = torch.tensor([1, 7])
    torch.testing.assert_close(
        env.log_prob(every[some], done.completions.ids_NL[some], some), got[some], atol=1e-3, rtol=1e-3
    )
    got.sum().backward()
    assert float(every.grad.abs().amax((1, 2)).min()) > 0


def test_sb3_sees_the_mean_and_all_texts(make):
    plain, adapter = make(), SB3VecEnv(make())
    plain.reset(seed=3)
    adapter.seed(3)
    adapter.reset()
    rewards, (_, got, _, infos) = plain.step(chains(4))[1], adapter.step(chains(4))
    np.testing.assert_allclose(got, rewards, rtol=1e-6)
    assert [len(info["completions"]) for info in infos] == [M] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "decodes_per_chain=3: greedy decoding gives the same completion 3 times; "
                               "set temperature above 0"),
        ({"several": 0}, "decodes_per_chain: expected a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_would_be_the_same_again_is_refused(make, changes, message):
    for build in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(ConfigError) as caught:
            make(build=build, **changes)
        assert message in str(caught.value)


def test_several_completions_of_one_chain_are_different_ones_that_begin_with_the_opening(make):
    env = make(several=1)
    env.reset(seed=0)
    engine = env.engine
    done, judged = engine.complete(
        engine.items, engine.cache, engine.rows_N, torch.zeros(4, T, D), seed=3, openings=["7"] * 4, counts=[M] * 4
    )
    assert [sample.question for sample in judged.result()] == [i.question for i in engine.items for _ in range(M)]
    for start in range(0, 4 * M, M):
        assert len({tuple(ids) for ids in done.ids_NL[start : start + M].tolist()}) == M
    assert all(text.startswith("7") for text in done.texts)


def test_a_decoder_that_cannot_write_different_ones_samples_each_by_itself(make):
    env = make(several=1)
    env.reset(seed=0)
    engine = env.engine
    chains_NTD, plain = torch.zeros(4, T, D), engine.decoder

    class Narrow:
        def __getattr__(self, name):
            if name == "decode_distinct":
                raise AttributeError(name)
            return getattr(plain, name)

    engine.decoder = Narrow()
    asked = (engine.items, engine.cache, engine.rows_N, chains_NTD)
    counts, openings = [M, 1, M, M + 1], ["", "7", "7", "3 4"]
    done, judged = engine.complete(*asked, seed=3, counts=counts, openings=openings)
    once, _ = engine.complete(*asked, seed=3, openings=openings)
    engine.decoder = plain
    several = [row for row, count in enumerate(counts) for _ in range(count)]
    assert [sample.question for sample in judged.result()] == [engine.items[row].question for row in several]
    assert all(text.startswith(openings[row]) for text, row in zip(done.texts, several, strict=True))
    firsts = [several.index(row) for row in range(4)]
    assert [done.texts[row] for row in firsts] == once.texts
    assert len(set(done.texts[:M])) > 1, "each has draws of its own"
