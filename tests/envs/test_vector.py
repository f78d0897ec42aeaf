import json

import gymnasium
import numpy as np
import pytest
import torch
from dlr_envs.single import LatentEnv
from dlr_envs.vector import LatentVectorEnv
from gymnasium.vector import AutoresetMode

from dlr_core.errors import ActionError, ConfigError

ID = "dlr/ChainSum-v0"
T, D = 3, 4


@pytest.fixture
def kwargs(tiny_model):
    sizes = {"num_latents": T, "latent_dim": D, "max_new_tokens": 8}
    return {**sizes, "decoder": str(tiny_model), "task_kwargs": {"pool": 64}}


def make(kwargs, num_envs=4, **more) -> LatentVectorEnv:
    return gymnasium.make_vec(ID, num_envs=num_envs, **{**kwargs, **more})


def chains(rows, seed=0, width=T * D):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("name", [ID, f"dlr_envs:{ID}"])
def test_both_ways_of_naming_an_id_give_the_vector_environment(kwargs, name):
    env = gymnasium.make_vec(name, num_envs=2, **kwargs)
    assert type(env) is LatentVectorEnv
    assert env.num_envs == 2
    assert isinstance(gymnasium.make(name, **kwargs).unwrapped, LatentEnv)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("per_step", [T, 1])
def test_a_batch_gives_what_single_environments_with_the_same_seeds_give(kwargs, per_step, temperature):
    options = {"latents_per_step": per_step, "temperature": temperature}
    vector, actions = make(kwargs, **options), chains(4)
    observations, info = vector.reset(seed=5)
    singles = [gymnasium.make(ID, **{**kwargs, **options}) for _ in range(4)]
    starts = [env.reset(seed=5 + row) for row, env in enumerate(singles)]
    for _ in range(2):  # the second episode's questions and samples follow from the first one's
        for row, (observation, one) in enumerate(starts):
            np.testing.assert_allclose(observations[row], observation, rtol=1e-3, atol=5e-4)
            assert {key: info[key][row] for key in one} == one
        for part in np.split(actions, T // per_step, axis=1):
            observations, rewards, terminated, truncated, info = vector.step(part)
            stepped = [env.step(part[row]) for row, env in enumerate(singles)]
            for row, (_, reward, ended, cut, _) in enumerate(stepped):
                assert rewards[row] == pytest.approx(reward)
                assert (terminated[row], truncated[row]) == (ended, cut)
        for row, result in enumerate(stepped):
            final = {key: info["final_info"][key][row] for key in result[4]}
            assert final == result[4]
        starts = [env.reset() for env in singles]


def test_equal_seeds_give_equal_episodes_and_others_do_not(kwargs):
    env, actions = make(kwargs, temperature=1.0), chains(4)

    def episode(seed):
        _, info = env.reset(seed=seed)
        final = env.step(actions)[4]["final_info"]
        return list(info["question"]), list(final["completion"])

    assert episode(1) == episode(1)
    assert episode(1) != episode(7)


def test_seeds_may_be_given_one_by_one(kwargs):
    env = make(kwargs)
    _, one = env.reset(seed=[9, 9, 3, 4])
    _, other = env.reset(seed=3)
    assert one["question"][0] == one["question"][1]
    assert list(one["question"][2:]) == list(other["question"][:2])


def test_groups_share_a_question_and_chosen_indices_are_used(kwargs):
    env = make(kwargs, num_envs=6)
    _, info = env.reset(seed=0, options={"group_size": 3, "index": [5, 2]})
    assert list(info["index"]) == [5, 5, 5, 2, 2, 2]
    assert [item.index for item in env.groups] == [5, 2]
    _, _, _, _, info = env.step(chains(6))
    following = list(info["question"])
    assert following == [following[0]] * 3 + [following[3]] * 3
    _, info = env.reset(seed=0)
    assert len(set(info["question"])) > 2


def test_a_groups_question_is_drawn_by_its_first_member(kwargs):
    env = make(kwargs)
    _, alone = env.reset(seed=[5, 6, 7, 8])
    _, grouped = env.reset(seed=[5, 6, 7, 8], options={"group_size": 2})
    first, _, third, _ = alone["question"]
    assert first != third
    assert list(grouped["question"]) == [first, first, third, third]


def test_each_distinct_question_is_prefilled_once(kwargs):
    env = make(kwargs, num_envs=6)
    env.reset(options={"group_size": 3, "index": [5, 2]})
    assert env.engine.cache.rows == 2
    assert env.engine.rows_N.tolist() == [0, 0, 0, 1, 1, 1]
    env.reset(options={"index": [1, 1, 1, 1, 1, 1]})
    assert env.engine.cache.rows == 1


def test_a_single_environment_takes_an_index_too(kwargs):
    env = gymnasium.make(ID, **kwargs)
    _, info = env.reset(options={"index": 7})
    assert info["index"] == 7
    assert info["question"] == env.unwrapped.engine.task.item("train", 7).question


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 3}, "group_size: expected a divisor of 4, got 3"),
        ({"index": [1]}, "index: expected 4 questions"),
    ],
)
def test_wrong_reset_options_are_refused(kwargs, options, message):
    with pytest.raises(ConfigError, match=message):
        make(kwargs).reset(options=options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents_per_step": 2}, "expected a divisor of 3, got 2"),
        ({"split": "tset"}, "'tset'"),
        ({"temperature": -1.0}, "temperature: expected a finite number of at least 0"),
        ({"space": "kw"}, "no space named 'kw'"),
        ({"reward": "dule"}, "did you mean 'dual'"),
        ({"task": None}, "needs a task"),
    ],
)
def test_wrong_keyword_arguments_are_refused_when_made(kwargs, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(kwargs, **changes)


def test_ended_episodes_restart_in_the_same_step_and_leave_their_last_words(kwargs):
    env = make(kwargs)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    _, before = env.reset(seed=0)
    observation, rewards, terminated, truncated, info = env.step(chains(4))
    assert terminated.all()
    assert not truncated.any()
    assert list(info["final_info"]["question"]) == list(before["question"])
    assert info["_final_info"].all()
    assert info["_final_obs"].all()
    assert all(env.single_observation_space.contains(last) for last in info["final_obs"])
    assert env.observation_space.contains(observation)
    done = env.finished
    assert list(info["final_info"]["completion"]) == done.completions.texts
    assert rewards.tolist() == pytest.approx(done.rewards_N.tolist())
    for row, item in enumerate(env.engine.items):
        assert info["question"][row] == item.question


@pytest.mark.parametrize("per_step", [T, 1])
def test_without_autoreset_episodes_reset_by_hand_are_those_of_autoreset(kwargs, per_step):
    options = {"latents_per_step": per_step, "temperature": 1.0}
    auto, manual = make(kwargs, **options), make(kwargs, autoreset_mode="Disabled", **options)
    assert manual.metadata["autoreset_mode"] == manual.autoreset_mode == AutoresetMode.DISABLED
    expected, wanted = auto.reset(seed=5)
    seen, info = manual.reset(seed=5)
    for number in range(2):
        np.testing.assert_array_equal(seen, expected)
        assert list(info["question"]) == list(wanted["question"])
        for part in np.split(chains(4, seed=number), T // per_step, axis=1):
            expected, rewards, terminated, _, wanted = auto.step(part)
            seen, got, ended, _, info = manual.step(part)
            np.testing.assert_array_equal(got, rewards)
            assert ended.tolist() == terminated.tolist()
        assert {key: list(info[key]) for key in info} == {k: list(v) for k, v in wanted["final_info"].items()}
        np.testing.assert_array_equal(seen, np.stack(list(wanted["final_obs"])))
        with pytest.raises(ActionError, match="expected reset: the episodes ended with latent 3"):
            manual.step(part)
        seen, info = manual.reset(options={"reset_mask": np.ones(4, bool)})


def test_a_part_of_the_sub_environments_cannot_be_reset(kwargs):
    env = make(kwargs, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ConfigError, match="reset_mask: expected every sub-environment"):
        env.reset(seed=0, options={"reset_mask": np.array([True, True, False, True])})


def test_other_autoreset_modes_are_refused(kwargs):
    for mode in (AutoresetMode.NEXT_STEP, "NextStep", "never"):
        with pytest.raises(ConfigError, match="expected 'SameStep' or 'Disabled'"):
            make(kwargs, autoreset_mode=mode)


def test_a_single_environment_wants_a_reset_after_the_last_latent(kwargs):
    env = gymnasium.make(ID, **kwargs)
    env.reset(seed=0)
    env.step(chains(1)[0])
    with pytest.raises(ActionError, match="expected reset"):
        env.step(chains(1)[0])


def test_only_the_last_of_several_steps_ends_the_episode(kwargs):
    env = make(kwargs, latents_per_step=1)
    first, _ = env.reset(seed=0)
    for number in range(T):
        observation, rewards, terminated, _, info = env.step(chains(4, seed=number, width=D))
        assert terminated.all() == terminated.any() == (number == T - 1)
        assert ("final_info" in info) == (number == T - 1)
        if number < T - 1:
            assert not rewards.any()
            assert np.abs(observation - first).max() > 1e-3


def test_returned_arrays_are_fresh(kwargs):
    env = make(kwargs, latents_per_step=1)
    one, _ = env.reset(seed=0)
    kept = one.copy()
    other = env.step(chains(4, width=D))[0]
    other[:] = 0
    np.testing.assert_array_equal(one, kept)
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again, kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a[:3], r"expected actions of shape \(4, 12\), got \(3, 12\)"),
        (lambda a: a[:, :5], r"expected actions of shape \(4, 12\), got \(4, 5\)"),
        (lambda a: np.where(a > 0.9, np.nan, a), "finite"),
        (lambda a: np.where(a > 0.9, np.inf, a), "finite"),
        (lambda a: a.astype(str), "finite numbers"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(kwargs, spoil, message):
    env, actions = make(kwargs), chains(4)
    env.reset(seed=0)
    env.step(actions)
    expected = env.finished.completions.texts
    env.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(spoil(actions))
    env.step(actions)
    assert env.finished.completions.texts == expected


def test_actions_outside_the_box_are_clipped(kwargs):
    env, actions = make(kwargs), chains(4)
    env.reset(seed=0)
    env.step(np.sign(actions))
    inside = env.finished.completions.texts
    env.reset(seed=0)
    env.step(100.0 * actions)
    assert env.finished.completions.texts == inside


def test_a_sampled_chain_depends_on_its_own_seed_alone(kwargs):
    env, actions = make(kwargs, temperature=1.0), chains(4)

    def texts(seeds):
        env.reset(seed=seeds, options={"index": [0, 1, 2, 3]})
        env.step(actions)
        return env.finished.completions.texts

    one, other = texts([1, 2, 3, 4]), texts([1, 2, 3, 99])
    assert one[:3] == other[:3]
    assert one[3] != other[3]


@pytest.mark.parametrize("group", [1, 2])
def test_question_states_have_one_row_per_group_and_no_latent_positions(kwargs, group):
    env = make(kwargs)
    env.reset(seed=0, options={"group_size": group})
    states, mask = env.question_states()
    cached = env.engine.cache.mask_NS.shape[1]
    assert states.shape == (4 // group, cached - T, env.engine.decoder.hidden_size)
    assert mask.shape == states.shape[:2]
    for row, item in enumerate(env.groups):
        own, real = env.engine.prefill([item.question]).question_states()
        torch.testing.assert_close(states[row][mask[row].bool()], own[0][real[0].bool()], atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_prob_is_the_decoders_and_is_differentiable_in_the_latents_alone(kwargs, temperature):
    env, actions = make(kwargs, temperature=temperature, space={"name": "kv", "chart": "joint"}), chains(4)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="call step first"):
        env.log_prob(torch.zeros(4, T, D), torch.zeros(4, 1, dtype=torch.long))
    env.step(actions)
    engine, done = env.engine, env.finished
    latents = torch.tensor(actions).view(4, T, D).requires_grad_()
    got = env.log_prob(latents, done.completions.ids_NL)
    ready = engine.space.inject(done.cache.select(done.rows_N), latents.detach())
    expected = engine.decoder.log_prob(ready, done.completions.ids_NL, done.completions.mask_NL, temperature or 1.0)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    some = env.log_prob(latents[[1, 3]], done.completions.ids_NL[[1, 3]], torch.tensor([1, 3]))
    torch.testing.assert_close(some, got[[1, 3]], atol=1e-3, rtol=1e-3)
    got.sum().backward()
    assert float(latents.grad.abs().amax((1, 2)).min()) > 0
    assert float(engine.space.chart_DW.grad.abs().sum()) > 0
    assert all(weight.grad is None for weight in engine.decoder.model.parameters())


def test_gold_log_prob_is_that_of_the_answer_to_the_current_question(kwargs):
    env = make(kwargs)
    env.reset(seed=0)
    latents = torch.tensor(chains(4)).view(4, T, D)
    got = env.gold_log_prob(latents)
    engine = env.engine
    ids, mask = engine.decoder.encode_targets([engine.task.gold_text(item) for item in engine.items])
    ready = engine.space.inject(engine.cache.select(engine.rows_N), latents)
    torch.testing.assert_close(got, engine.decoder.log_prob(ready, ids, mask), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(env.gold_log_prob(latents[2:3], torch.tensor([2])), got[2:3], atol=1e-3, rtol=1e-3)


def test_a_restored_environment_continues_as_the_saved_one(kwargs):
    env = make(kwargs, temperature=1.0)
    env.reset(seed=0, options={"group_size": 2})
    env.step(chains(4))
    state = json.loads(json.dumps(env.state()))
    other = make(kwargs, temperature=1.0)
    other.reset(seed=99)
    other.restore(state)
    for number in range(3):
        one, two = (e.step(chains(4, seed=number)) for e in (env, other))
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
        assert env.finished.completions.texts == other.finished.completions.texts
        assert [item.index for item in env.groups] == [item.index for item in other.groups]


def test_splits_share_no_question(kwargs):
    shown = {}
    for split in ("train", "validation", "test"):
        task = make(kwargs, split=split).engine.task
        env = make(kwargs, split=split)
        env.reset(seed=0)
        shown[split] = {task.item(split, index).question for index in range(task.size(split))}
        assert {item.question for item in env.groups} <= shown[split]
    assert not shown["train"] & shown["validation"]
    assert not shown["train"] & shown["test"]
    assert not shown["validation"] & shown["test"]


def test_a_saved_space_is_loaded_by_its_folder(kwargs, tmp_path):
    from dlr_core.artefact import save_space

    made = make(kwargs, space={"name": "kv", "chart": "random", "seed": 5}).engine
    options, digest = made.space.options.model_dump(mode="json"), made.decoder.fingerprint()
    save_space(made.space, tmp_path / "mine", name="kv", options=options, digest=digest)
    loaded = make(kwargs, space=str(tmp_path / "mine")).engine.space
    assert torch.equal(loaded.chart_DW, made.space.chart_DW)
    assert torch.equal(loaded.scale, made.space.scale)
