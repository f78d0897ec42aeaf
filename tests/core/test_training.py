import json
import math
import threading

import pytest
import torch
from pydantic import BaseModel

from dlr_core import API_VERSION, PluginHost, hookimpl
from dlr_core.advantages import success_rate
from dlr_core.checkpoint import load_weights, restore
from dlr_core.checkpoints import latest_checkpoint, save_checkpoint
from dlr_core.config import resolve
from dlr_core.controls import control_table
from dlr_core.errors import ConfigError, PluginError, RunFolderError
from dlr_core.evaluate import Evaluator
from dlr_core.pipeline import build_trainer
from dlr_core.questions import distinct_items
from dlr_core.records import Verdict
from dlr_core.traces import trace

ESTIMATORS = PluginHost.from_entry_points().names("estimator")
SCORERS = PluginHost.from_entry_points().names("scorer")
CONTRASTIVES = PluginHost.from_entry_points().names("contrastive")
PLAN = {"steps": 3, "minutes": None, "env": "dlr/Toy-v0"}
SPACE = {"name": "kv", "chart": "random", "num_latents": 2, "latent_dim": 4, "radius": 4.0, "anchor": "Let me see:"}
SPREAD = {"initial_scale": 0.4, "smallest_scale": 0.2}


@pytest.fixture
def configure(host, tiny_model):
    """Settings of a tiny run; keyword arguments replace whole tables."""

    def make(**tables):
        base = {
            **PLAN,
            "seed": 0,
            "task": {"wanted": "0123456789"},
            "decoder": {"model": str(tiny_model)},
            "space": SPACE,
            "assistant": {"name": "small-gpt", "width": 16, "heads": 2, "layers": 1, **SPREAD},
            "batch": {"questions": 3, "samples": 4, "decodes": 4},
            "replay": {"chains": 4, "capacity": 16},
            "probe": {"every": 2},
        }
        return resolve({**base, **tables}, host)

    return make


def sampling(host, estimator):
    """Decoder settings under which an estimator is valid."""
    needs = getattr(host.find("estimator", estimator).factory, "needs_sampling", False)
    return {"temperature": 1.0} if needs else {}


def timeless(metrics):
    return {key: value for key, value in metrics.items() if key not in ("seconds", "phases")}


def train(config, host, steps=None):
    trainer = build_trainer(config, host)
    if steps is None:
        return trainer, [timeless(metrics) for metrics in trainer.run()]
    return trainer, [timeless(trainer.step()) for _ in range(steps)]


def tensors(trainer):
    parts = (trainer.assistant, trainer.contrastive, trainer.scorer, trainer.space)
    return {f"{n}.{k}": v.clone() for n, part in enumerate(parts) for k, v in part.state_dict().items()}


def moved(before, after):
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


# ---- every component runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_trains_under_every_scorer_and_leaves_the_main_model_alone(
    configure, host, tiny_model, estimator, scorer
):
    all_decoded = host.find("scorer", scorer).factory.decodes_all
    config = configure(
        estimator=estimator,
        scorer=scorer,
        decoder={"model": str(tiny_model), **sampling(host, estimator)},
        batch={"questions": 3, "samples": 4, "decodes": 4 if all_decoded else 2},
    )
    trainer = build_trainer(config, host)
    digest, before = trainer.env.engine.decoder.fingerprint(), tensors(trainer)
    metrics = list(trainer.run())
    assert [m["step"] for m in metrics] == [1, 2, 3]
    for m in metrics:
        assert {"phase", "reward", "correct", "format", "decodes", "tokens", "seconds", "loss", "grad_norm"} <= set(m)
        assert all(math.isfinite(v) for v in m.values() if isinstance(v, float))
        needs = trainer.estimator.needs_completions
        assert m["decodes"] == (3 * config.decodes if needs else 0)
    assert trainer.env.engine.decoder.fingerprint() == digest
    changed = moved(before, tensors(trainer))
    assert any(key.startswith("0.") for key in changed)
    assert not any(key.startswith("3.") for key in changed)
    if scorer == "learned" and trainer.estimator.needs_completions:
        assert any(key.startswith("2.") for key in changed)


def test_the_likelihood_scorer_predicts_the_gold_answers_probability(configure, host):
    """Chains of one group, the env holding fewer of them than are sampled: every prediction is its own question's."""
    batch = {"questions": 3, "samples": 4, "decodes": 2}
    trainer = build_trainer(configure(scorer="likelihood", batch=batch), host)
    env, items = trainer.env, list(trainer.env.groups)
    states, mask = env.question_states()
    chains = trainer.collector.sample(states, mask, torch.zeros(12, 2, 4)).actions_NTD.detach()
    spread = (chains + 0.3 * torch.arange(12)[:, None, None] / 12).clamp(-1, 1)
    predicted = trainer.collector._predict(states, mask, spread.unflatten(0, (3, 4)))
    engine = env.engine
    for b, item in enumerate(items):
        ready = engine.space.inject(engine.prefill([item.question] * 4), spread[4 * b : 4 * b + 4])
        ids, kept = engine.decoder.encode_targets([engine.task.gold_text(item)] * 4)
        expected = engine.decoder.log_prob(ready, ids, kept).exp()
        assert predicted[b].tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert trainer.step()["scored"] > 12


@pytest.mark.parametrize("contrastive", CONTRASTIVES)
@pytest.mark.parametrize("assistant", ["small-gpt", "mlp", "prior"])
def test_every_assistant_trains_under_every_contrastive_objective(configure, host, assistant, contrastive):
    _, metrics = train(configure(assistant={"name": assistant, **SPREAD}, contrastive=contrastive), host)
    assert len(metrics) == 3
    assert all(math.isfinite(m["loss"]) for m in metrics)


@pytest.mark.parametrize("space", ["kv", "input"])
def test_a_joint_chart_is_trained_and_a_fixed_one_is_not(configure, host, space):
    for chart in ("joint", "random"):
        config = configure(space={**SPACE, "name": space, "chart": chart})
        trainer = build_trainer(config, host)
        before = tensors(trainer)
        list(trainer.run())
        assert any(key.startswith("3.") for key in moved(before, tensors(trainer))) == (chart == "joint")


def test_score_refuses_a_joint_chart(configure, host):
    config = configure(estimator="score", space={**SPACE, "chart": "joint"})
    with pytest.raises(ConfigError, match="'score' cannot train a joint chart"):
        build_trainer(config, host)


def test_several_epochs_and_resampled_groups_are_counted(configure, host):
    batch = {"questions": 3, "samples": 4, "decodes": 2, "epochs": 2, "resample_dead": 2}
    _, metrics = train(configure(estimator="score", scorer="random", batch=batch), host)
    assert all(m["decodes"] % 6 == 0 and 6 <= m["decodes"] <= 18 for m in metrics)
    assert any(m["decodes"] > 6 for m in metrics)


def test_a_warm_start_comes_first_and_decodes_nothing(configure, host):
    _, metrics = train(configure(warmstart={"steps": 2}), host)
    assert [m["phase"] for m in metrics] == ["warmstart"] * 2 + ["rl"] * 3
    for m in metrics[:2]:
        assert m["reward"] is m["correct"] is m["format"] is None
        assert m["decodes"] == m["tokens"] == 0
        assert m["gold_nll"] > 0
    assert all(m["decodes"] == 12 for m in metrics[2:])


def test_gold_likelihood_makes_the_gold_answer_likelier(configure, host):
    config = configure(estimator="likelihood", steps=25, optim={"lr": 0.01, "warmup": 1}, task={"wanted": "7"})
    _, metrics = train(config, host)
    assert metrics[-1]["gold_nll"] < metrics[0]["gold_nll"] - 0.3


def test_token_variety_is_probed_as_often_as_asked(configure, host):
    _, metrics = train(configure(steps=4), host)
    assert ["distinct_answers_tokens" in m for m in metrics] == [True, False, True, False]
    assert 1 <= metrics[0]["distinct_answers_tokens"] <= 4


# ---- determinism and resuming --------------------------------------------------------------------------------------


def everything(configure, tiny_model, steps=6, **more):
    """A run in which every source of state is in use."""
    return configure(
        steps=steps,
        estimator="pathwise",
        scorer="learned",
        contrastive="bidirectional",
        decoder={"model": str(tiny_model), "temperature": 0.1},
        space={**SPACE, "chart": "joint"},
        batch={"questions": 3, "samples": 4, "decodes": 2, "epochs": 2, "resample_dead": 1},
        optim={"entropy": 0.01, "kl": 0.01, "warmup": 4, "decay": 0.5},
        warmstart={"steps": 1},
        **more,
    )


def test_one_seed_gives_one_run_and_another_seed_another(configure, host, tiny_model):
    first, one = train(everything(configure, tiny_model, steps=3), host)
    second, again = train(everything(configure, tiny_model, steps=3), host)
    _, other = train(everything(configure, tiny_model, steps=3, seed=1), host)
    assert one == again
    assert not moved(tensors(first), tensors(second))
    assert one != other
    fresh = [build_trainer(everything(configure, tiny_model, seed=seed), host) for seed in (0, 1)]
    assert not torch.equal(fresh[0].collector.noise(1), fresh[1].collector.noise(1))


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(configure, host, tiny_model, tmp_path):
    config = everything(configure, tiny_model)
    whole, unbroken = train(config, host)
    assert sum("replay_nll" in metrics for metrics in unbroken) > 2
    broken, first = train(config, host, steps=4)
    saved = save_checkpoint(broken, tmp_path / "checkpoints", keep=2)
    resumed = build_trainer(config, host)
    restore(resumed, latest_checkpoint(tmp_path))
    assert latest_checkpoint(tmp_path) == saved
    second = [timeless(metrics) for metrics in resumed.run()]
    assert first + second == unbroken
    assert not moved(tensors(whole), tensors(resumed))
    assert whole.env.state() == resumed.env.state()
    assert torch.equal(whole.generator.get_state(), resumed.generator.get_state())


def test_a_checkpoint_without_a_question_cache_is_gone_on_with(configure, host, tiny_model, tmp_path):
    config = everything(configure, tiny_model)
    trainer, _ = train(config, host, steps=4)
    saved = save_checkpoint(trainer, tmp_path, keep=1)
    state = json.loads((saved / "state.json").read_text())
    held = state["rehearsal"].pop("questions")["rows"]
    earlier = {"cohort": ["of earlier code"], "row": 0}
    for key in ("successes", "frontier"):
        state["rehearsal"][key] = [{**entry, **earlier} for entry in state["rehearsal"][key]]
    (saved / "state.json").write_text(json.dumps(state))
    resumed = build_trainer(config, host)
    restore(resumed, saved)
    assert held
    assert not resumed.rehearsal.questions.held
    assert resumed.rehearsal.buffer.entries == trainer.rehearsal.buffer.entries
    assert resumed.rehearsal.frontier.waiting == trainer.rehearsal.frontier.waiting
    assert resumed.step()["question_cache_mb"] > 0
    restore(trainer, saved)  # nothing of before is left
    assert not trainer.rehearsal.questions.held


def test_a_run_can_start_from_another_ones_assistant_and_chart(configure, host, tmp_path):
    space = {**SPACE, "chart": "joint"}
    first, _ = train(configure(space=space), host)
    save_checkpoint(first, tmp_path / "checkpoints", keep=1)
    second = build_trainer(configure(space=space, init_from=str(tmp_path), seed=7), host)
    before, after = tensors(first), tensors(second)
    assert not {key for key in moved(before, after) if key[0] in "03"}
    assert second.step_number == 0
    assert not second.optimizer.state_dict()["state"]


def test_checkpoints_hold_no_pickle_and_only_the_newest_are_kept(configure, host, tmp_path):
    trainer = build_trainer(configure(), host)
    for _ in range(3):
        trainer.step()
        save_checkpoint(trainer, tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    files = sorted(path.name for path in (tmp_path / "step-000003").iterdir())
    assert files == ["optimizer.safetensors", "seal.json", "state.json", "weights.safetensors"]
    json.loads((tmp_path / "step-000003" / "state.json").read_text())


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(configure, host, tmp_path):
    trainer = build_trainer(configure(), host)
    saved = save_checkpoint(trainer, tmp_path / "checkpoints", keep=1)
    other = build_trainer(configure(assistant={"name": "prior"}), host)
    with pytest.raises(RunFolderError, match="cannot restore"):
        restore(other, saved)
    (saved / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="cannot restore"):
        load_weights({"assistant": trainer.assistant}, saved)
    with pytest.raises(RunFolderError, match="has no checkpoint"):
        latest_checkpoint(tmp_path / "nowhere")


# ---- learning ------------------------------------------------------------------------------------------------------


def accuracy(trainer):
    evaluator = Evaluator(trainer.env.engine)
    items = distinct_items(trainer.env.engine.task, "test", 20)
    samples = evaluator.under_latents(items, evaluator.latents(items, trainer.assistant))
    return sum(sample.correct for sample in samples) / len(samples)


@pytest.mark.parametrize(
    ("estimator", "chart"),
    [("score", "random"), ("pathwise_greedy", "joint"), ("pathwise", "random"), ("hybrid", "random")],
)
def test_an_easy_task_is_learned_and_carries_over_to_unseen_questions(configure, host, tiny_model, estimator, chart):
    config = configure(
        steps=120,
        task={"wanted": "2345"},
        reward="correctness",
        estimator=estimator,
        contrastive="none",
        decoder={"model": str(tiny_model), "max_new_tokens": 1, **(sampling(host, estimator) and {"temperature": 0.1})},
        space={**SPACE, "chart": chart, "latent_dim": 8},
        assistant={"name": "prior", **SPREAD},
        batch={"questions": 4, "samples": 8},
        optim={"lr": 0.05, "warmup": 1, "decay": 0.0},
        replay={"chains": 0},
        probe={"every": 0},
    )
    trainer = build_trainer(config, host)
    start = accuracy(trainer)
    metrics = list(trainer.run())
    late = sum(m["correct"] for m in metrics[-5:]) / 5
    assert start < 0.5
    assert late > 0.8
    assert accuracy(trainer) > 0.8


def test_blur_changes_what_replay_reads_and_nothing_before_it(configure, host):
    replay = {"chains": 4, "capacity": 16, "updates": 1}
    sharp, blurred = (
        [timeless(metrics) for metrics in build_trainer(configure(replay={**replay, **blur}), host).run()]
        for blur in ({"blur": 0.0}, {"blur": 0.5})
    )
    known = next(step for step, metrics in enumerate(sharp) if "replay_nll" in metrics)
    assert blurred[:known] == sharp[:known]
    assert blurred[known]["reward"] == sharp[known]["reward"], "the rollout comes before the replay"
    assert blurred[known]["replay_nll"] != sharp[known]["replay_nll"]


def test_replay_alone_makes_remembered_successes_likelier(configure, host):
    config = configure(
        steps=20,
        estimator={"name": "pathwise_greedy", "advantage": 0.0, "success_weight": 0.0},
        contrastive="none",
        optim={"lr": 0.03, "warmup": 1},
        replay={"chains": 8, "capacity": 16, "updates": 1},
        batch={"questions": 2, "samples": 4},
    )
    _, metrics = train(config, host)
    shown = [m["replay_nll"] for m in metrics if "replay_nll" in m]
    assert len(shown) > 12
    assert sum(shown[-3:]) / 3 < sum(shown[:3]) / 3 - 0.2


@pytest.mark.parametrize("priority", [0.5, 1.0])
def test_of_each_question_the_first_success_is_remembered_and_rare_ones_weigh_more(configure, host, priority):
    trainer = build_trainer(
        configure(
            task={"wanted": "13579"},
            batch={"questions": 6, "samples": 4},
            replay={"chains": 4, "capacity": 16, "search": 0, "priority": priority},
        ),
        host,
    )
    rollout = trainer.collector.collect(gold=False)
    done = trainer.env.finished
    trainer.rehearsal.remember(
        done.items[::4], done.completions, rollout.batch.correct_BK, rollout.batch.success_rate_B
    )
    samples = rollout.samples
    expected = {}  # a question that was drawn twice has its second success
    for start in range(0, len(samples), 4):
        group = samples[start : start + 4]
        right = [sample for sample in group if sample.correct and sample.format]
        if right:
            expected[right[0].question] = (right[0].completion, (1.05 - len(right) / 4) ** priority)
    entries, tokenizer = trainer.rehearsal.buffer.entries, trainer.env.engine.decoder.tokenizer
    assert len({entry.weight for entry in entries}) > 1
    assert len(entries) == len(expected)
    for entry in entries:
        completion, weight = expected[entry.item.question]
        assert tokenizer.decode(list(entry.ids)).removesuffix("</s>") == completion
        assert entry.weight == pytest.approx(weight)


def test_search_adds_only_right_completions_and_leaves_the_rollout_alone(configure, host):
    def first_step(search):
        config = configure(
            task={"wanted": "0123456789"},
            replay={"chains": 4, "capacity": 64, "search": search, "tries": 6, "openings": ["3"]},
        )
        trainer = build_trainer(config, host)
        return trainer, trainer.step()

    without, plain = first_step(0)
    trainer, searched = first_step(5)
    assert all(searched[key] == plain[key] for key in ("correct", "tokens", "distinct_answers", "decodes"))
    assert searched["search_decodes"] % 6 == 0
    assert 0 < searched["search_decodes"] <= 5 * 6
    assert "search_decodes" not in plain
    known, found = (
        {(entry.item.question, entry.ids) for entry in each.rehearsal.buffer.entries} for each in (without, trainer)
    )
    assert known < found
    tokenizer = trainer.env.engine.decoder.tokenizer
    assert all(tokenizer.decode(list(ids), skip_special_tokens=True)[0].isdigit() for _, ids in found)


def test_the_search_tries_again_what_nothing_has_solved_and_prefills_only_what_is_new(configure, host):
    config = configure(
        steps=6,
        task={"wanted": "7", "questions": 400},
        batch={"questions": 2, "samples": 2},
        replay={"chains": 4, "capacity": 64, "search": 6, "fresh": 2, "tries": 2, "openings": [""]},
    )
    trainer = build_trainer(config, host)
    asked = []
    engine = trainer.env.engine
    prefill = engine.prefill
    engine.prefill = lambda questions: asked.append(list(questions)) or prefill(questions)
    for _ in range(6):
        before = set(trainer.rehearsal.frontier.waiting)
        metrics = trainer.step()
        after = set(trainer.rehearsal.frontier.waiting)
        solved = {entry.item.question for entry in trainer.rehearsal.buffer.entries}
        assert not after & solved
        assert before - after <= solved  # a question leaves when it is solved, the frontier being far from full
        assert metrics["frontier"] == len(after)
    rollouts, searches = asked[0::2], asked[1::2]
    assert all(len(questions) <= 2 for questions in [*rollouts, *searches[1:]])
    assert len(trainer.rehearsal.frontier.waiting) > 6


def test_new_questions_begin_with_the_first_opening_and_unsolved_ones_with_each_in_turn(configure, host):
    config = configure(
        task={"wanted": "13579", "questions": 400},
        space={**SPACE, "radius": 1e-6},
        replay={"chains": 4, "capacity": 64, "search": 3, "fresh": 1, "tries": 5, "openings": ["2", "3"]},
    )
    rehearsal = build_trainer(config, host).rehearsal
    new = rehearsal.search()
    assert (new["search_decodes"], new["search_correct"], new["frontier"]) == (3 * 5, 0.0, 3)
    again = rehearsal.search()  # "2" three times, "3" twice, and only 3 is wanted
    assert again["search_decodes"] == 3 * 5
    assert again["search_correct"] == pytest.approx(2 * 2 / 15)
    assert again["search_best"] == pytest.approx(2 / 3)
    assert again["frontier"] == 3 - 2 + 1
    tokenizer = rehearsal.env.engine.decoder.tokenizer
    assert all(tokenizer.decode(list(entry.ids)).startswith("3") for entry in rehearsal.buffer.entries)


def test_a_remembered_success_weighs_by_the_rate_of_all_chains_not_of_those_the_scorer_kept(configure, host):
    config = configure(
        task={"wanted": "13579"},
        scorer="likelihood",
        batch={"questions": 8, "samples": 6, "decodes": 2},
        replay={"chains": 4, "capacity": 64, "search": 0},
    )
    trainer = build_trainer(config, host)
    rollouts, rates = [], []
    collect, take = trainer.collector.collect, trainer.rehearsal.take
    trainer.collector.collect = lambda **how: rollouts.append(collect(**how)) or rollouts[-1]
    trainer.rehearsal.take = lambda *given: rates.append(given[-1]) or take(*given)
    trainer.step()
    batch = rollouts[0].batch
    expected = success_rate(batch.correct_BK, batch.chosen_BK, batch.predictions_BG, batch.inclusion_BG)
    torch.testing.assert_close(rates[0], expected)
    assert not torch.allclose(expected, batch.correct_BK.mean(1))


@pytest.mark.parametrize("flaw", [{"correct": 0.5}, {"format": 0.0}])
def test_the_search_has_not_solved_what_is_only_partly_right_or_breaks_the_format(configure, host, flaw):
    config = configure(replay={"chains": 4, "capacity": 64, "search": 3, "fresh": 3, "tries": 2, "openings": ["3"]})
    rehearsal = build_trainer(config, host).rehearsal
    task = rehearsal.env.engine.task
    task.score = lambda item, completion, ended: Verdict(**{"parsed": "3", "correct": 1.0, "format": 1.0, **flaw})
    found = rehearsal.search()
    assert (found["search_correct"], found["search_best"], found["frontier"]) == (0.0, 0.0, 3)
    assert not rehearsal.buffer.entries


@pytest.mark.parametrize("at_once", [None, 2])
def test_the_search_decodes_all_in_one_batch_or_some_questions_at_a_time(configure, host, monkeypatch, at_once):
    replay = {"chains": 4, "capacity": 64, "search": 3, "fresh": 1, "tries": 4, "openings": ["2", "3"]}
    config = configure(task={"wanted": "7", "questions": 400}, replay={**replay, "at_once": at_once})
    rehearsal = build_trainer(config, host).rehearsal
    rehearsal.search()  # from now on there are unsolved questions
    decoder, asked = rehearsal.env.engine.decoder, []
    decode = decoder.decode_distinct

    def noted(cache, counts, limit, generators, openings):
        asked.append(list(zip(counts, openings, strict=True)))
        return decode(cache, counts, limit, generators, openings)

    monkeypatch.setattr(decoder, "decode_distinct", noted)
    assert rehearsal.search()["search_decodes"] == 3 * 4
    two, three = (decoder.encode(text) for text in "23")
    whole = [(4, two), (2, two), (2, two), (2, three), (2, three)]
    assert asked == ([whole] if at_once is None else [whole[:1], whole[1:3], whole[3:]])


def test_some_questions_of_a_search_are_judged_while_others_are_written(configure, host, monkeypatch):
    config = configure(
        task={"wanted": "7", "questions": 400},
        replay={"chains": 4, "capacity": 64, "search": 3, "fresh": 3, "tries": 2, "openings": ["2"], "at_once": 1},
    )
    rehearsal = build_trainer(config, host).rehearsal
    engine, decoded, last = rehearsal.env.engine, [], threading.Event()
    inject, score = engine.inject, engine.task.score

    def counted(*args, **kwargs):
        decoded.append(inject(*args, **kwargs))  # what is injected is decoded next, on the same thread
        if len(decoded) == 3:
            last.set()
        return decoded[-1]

    def late(*args):
        assert last.wait(20.0), "the last question waits for this verdict"
        return score(*args)

    monkeypatch.setattr(engine, "inject", counted)
    monkeypatch.setattr(engine.task, "score", late)
    assert rehearsal.search()["search_decodes"] == 3 * 2
    assert len(decoded) == 3


def test_a_search_finds_the_same_however_many_questions_are_taken_at_a_time(configure, host):
    found = []
    for at_once in (None, 1, 2):
        replay = {"chains": 4, "capacity": 64, "search": 5, "fresh": 3, "tries": 4, "at_once": at_once}
        rehearsal = build_trainer(configure(task={"wanted": "0123456789"}, replay=replay), host).rehearsal
        rehearsal.search()
        rehearsal.search()
        found.append([(entry.item.question, entry.ids) for entry in rehearsal.buffer.entries])
    assert found[0] == found[1] == found[2]
    assert found[0]


def test_memory_is_given_back_before_the_search_and_once_before_replay(configure, host, monkeypatch):
    order = []
    trainer = build_trainer(configure(replay={"chains": 4, "search": 2, "updates": 3}), host)
    for name in ("search", "replay"):
        honest = getattr(trainer.rehearsal, name)
        noted = lambda *given, name=name, honest=honest: (order.append(name), honest(*given))[1]  # noqa: E731
        monkeypatch.setattr(trainer.rehearsal, name, noted)
    monkeypatch.setattr("dlr_core.trainer.give_back", lambda: order.append("given back"))
    trainer.step()
    assert order == ["given back", "search", "given back", "replay", "replay", "replay"]


@pytest.mark.parametrize("updates", [1, 3])
def test_each_replay_update_trains_on_as_many_successes(configure, host, updates):
    config = configure(steps=6, replay={"chains": 8, "capacity": 16, "search": 0, "updates": updates})
    trainer = build_trainer(config, host)
    calls = []
    replay = trainer.rehearsal.replay

    def counted(least, backward):
        calls.append(replay(least, backward))
        return calls[-1]

    trainer.rehearsal.replay = counted
    for _ in range(6):
        before = [parameter.detach().clone() for parameter in trainer.parameters]
        trainer.step()
        assert any(not torch.equal(x, y) for x, y in zip(before, trainer.parameters, strict=True))
    assert len(calls) == 6 * updates
    assert any(calls)


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_successes_that_are_learned_from_some_at_a_time_make_the_same_update(configure, host, at_once):
    replay = {"chains": 8, "capacity": 16, "updates": 2, "at_once": None}
    whole, parts = (
        build_trainer(configure(steps=5, replay=table), host) for table in (replay, replay | {"at_once": at_once})
    )
    scored = []
    engine = parts.env.engine
    log_prob = engine.decoder.log_prob

    def counted(ready, ids, *more):
        scored.append(len(ids))
        return log_prob(ready, ids, *more)

    engine.decoder.log_prob = counted
    replayed = 0
    for _ in range(5):
        expected, shown = whole.step(), parts.step()
        assert ("replay_nll" in expected) == ("replay_nll" in shown)
        if "replay_nll" in expected:
            replayed += 1
            assert shown["replay_nll"] == pytest.approx(expected["replay_nll"], abs=1e-4)
            assert shown["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
        for one, other in zip(whole.parameters, parts.parameters, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert replayed >= 2
    assert scored.count(at_once) >= 2 * replayed * (8 // at_once)


def test_a_step_averages_its_gradient_over_the_groups_that_are_alive(configure, host):
    batch = {"questions": 3, "samples": 2, "resample_dead": 3}
    config = configure(assistant={"name": "prior", **SPREAD}, contrastive="none", replay={"chains": 0}, batch=batch)
    trainer = build_trainer(config, host)

    class Unit:
        needs_completions = True

        def __call__(self, batch):
            alive = float((batch.rewards_BK.amax(1) > batch.rewards_BK.amin(1)).sum())
            return trainer.assistant.mean_TD.sum() * alive / 3, {}

    trainer.estimator = Unit()
    norms = [trainer.step() for _ in range(4)]
    assert any(m["dead_groups"] for m in norms)
    for m in norms:
        rollouts = m["decodes"] // 6
        assert m["dead_groups"] == 3 * rollouts or m["grad_norm"] == pytest.approx(8**0.5)


def test_the_gradients_of_accumulated_rollouts_are_averaged(configure, host):
    def gradients(accumulate, steps):
        batch = {"questions": 3, "samples": 2, "accumulate": accumulate}
        still = {"lr": 1e-30, "chart_lr": 1e-30, "warmup": 0}
        trainer = build_trainer(configure(replay={"chains": 0}, batch=batch, optim=still, probe={"every": 0}), host)
        found, apply = [], trainer.updates.apply

        def noted():
            found.append([p.grad.clone() for p in trainer.parameters if p.grad is not None])
            return apply()

        trainer.updates.apply = noted
        rows = [trainer.step() for _ in range(steps)]
        return found, rows

    apart, rows = gradients(1, 3)
    (together,), (row,) = gradients(3, 1)
    for mean, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(mean, sum(parts) / 3)
    assert row["decodes"] == sum(one["decodes"] for one in rows) == 3 * 6
    assert row["reward"] == pytest.approx(sum(one["reward"] for one in rows) / 3)


# ---- what a plugin may break ---------------------------------------------------------------------------------------


class Broken:
    """Components that misbehave after a while."""

    DLR_API_VERSION = API_VERSION

    class NanReward:
        def __call__(self, sample):
            return float("nan")

    class RaisingReward:
        def __call__(self, sample):
            raise KeyError("who")

    class ListReward:
        def __call__(self, sample):
            return [1.0, 2.0]

    class SleepyReward:
        def __call__(self, sample):
            return threading.Event().wait(60)

    class CountingReward:
        def __init__(self):
            self.calls = torch.zeros(())

        def __call__(self, sample):
            self.calls += 1
            return 1 / float(self.calls)

        def state_dict(self):
            return {"calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"].clone()

    class Assistant(torch.nn.Module):
        class Options(BaseModel):
            pre: float | None = None
            short: bool = False
            outside: bool = False
            raises: bool = False

        def __init__(self, options, hidden_size, num_latents, latent_dim):
            super().__init__()
            self.options = options
            self.weight = torch.nn.Parameter(torch.zeros(num_latents, latent_dim))

        def evaluate(self, states, mask, pre):
            from dlr_core.density import TanhGaussian

            return TanhGaussian(self.weight.expand_as(pre), torch.zeros_like(pre))

        def sample(self, states, mask, noise):
            from dlr_core.protocols import ChainBatch

            class Outside(ChainBatch):
                actions_NTD = property(lambda self: 1.5 * self.pre_NTD.sign())

            if self.options.raises:
                raise IndexError("nobody\nhome")
            pre = self.weight + noise * (float("nan") if self.options.pre is None else self.options.pre)
            made = Outside if self.options.outside else ChainBatch
            return made(noise, self.evaluate(states, mask, noise), pre[:, 1:] if self.options.short else pre)

    @hookimpl
    def dlr_register_reward(self, register):
        register("nan", self.NanReward)
        register("raising", self.RaisingReward)
        register("list", self.ListReward)
        register("sleepy", self.SleepyReward)
        register("counting", self.CountingReward)

    @hookimpl
    def dlr_register_assistant(self, register):
        register("broken", self.Assistant)


@pytest.fixture
def broken(host):
    host.add(Broken(), "broken")
    return host


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("nan", "reward NanReward returned nan on Sample"),
        ("raising", "RaisingReward raised KeyError"),
        ("list", r"reward ListReward: expected one number, got list \[1.0, 2.0\] on Sample"),
        ("sleepy", "reward SleepyReward has not answered within 2 s on Sample"),
    ],
)
def test_a_reward_that_fails_stops_the_run_with_its_name_and_the_sample(broken, configure, reward, message):
    trainer = build_trainer(configure(reward=reward, judge_seconds=2.0), broken)
    with pytest.raises(PluginError, match=message) as caught:
        trainer.step()
    assert "Say something about" in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"pre": 1.0, "short": True}])
def test_an_assistant_that_fails_stops_the_run_with_its_name(broken, configure, options):
    with pytest.raises(PluginError, match=r"assistant Assistant: expected finite latents of shape \(\d+, 2, 4\)"):
        build_trainer(configure(assistant={"name": "broken", **options}), broken).step()


def test_actions_outside_the_box_and_assistants_that_raise_stop_the_run(broken, configure):
    def message(**options):
        with pytest.raises(PluginError) as caught:
            build_trainer(configure(assistant={"name": "broken", "pre": 1.0, **options}), broken).step()
        return str(caught.value)

    assert message(outside=True) == "assistant Assistant: expected actions in [-1, 1], got one of size 1.5"
    assert message(raises=True) == "assistant Assistant raised IndexError: nobody"


def test_a_reward_with_a_state_is_resumed_with_it(broken, configure, tmp_path):
    config = configure(reward="counting", steps=4)
    _, unbroken = train(config, broken)
    half, first = train(config, broken, steps=2)
    saved = save_checkpoint(half, tmp_path / "checkpoints", keep=1)
    resumed = build_trainer(config, broken)
    restore(resumed, saved)
    assert float(resumed.env.engine.reward.calls) == float(half.env.engine.reward.calls) > 0
    assert first + [timeless(metrics) for metrics in resumed.run()] == unbroken


def test_an_update_without_a_finite_loss_is_left_out_and_counted_and_the_run_goes_on(configure, host):
    trainer = build_trainer(configure(replay={"chains": 0}, steps=3), host)
    estimator = trainer.estimator

    class Bad:
        needs_completions = True

        def __call__(self, batch):
            loss, logs = estimator(batch)
            return loss * float("nan"), logs

    trainer.step()
    before = tensors(trainer)
    trainer.estimator = Bad()
    metrics = trainer.step()
    assert (metrics["skipped_updates"], metrics["loss"]) == (1, None)
    assert not moved(before, tensors(trainer))
    json.loads(json.dumps(metrics, allow_nan=False))
    trainer.estimator = estimator
    metrics = trainer.step()
    assert "skipped_updates" not in metrics
    assert moved(before, tensors(trainer))


def test_a_space_that_writes_to_the_main_model_is_named(configure, host):
    trainer = build_trainer(configure(), host)
    inject, weight = trainer.space.inject, trainer.env.engine.decoder.model.get_input_embeddings().weight

    def writing(cache, actions):
        with torch.no_grad():
            weight.mul_(1.0)  # even where nothing changes: other tests share this model
        return inject(cache, actions)

    trainer.space.inject = writing
    expected = "space KVSpace, task ToyTask or reward Dual wrote to model.embed_tokens.weight of the main model"
    with pytest.raises(PluginError, match=expected):
        trainer.step()


# ---- after the run -------------------------------------------------------------------------------------------------


def test_the_control_table_and_the_traces_describe_the_trained_run(configure, host):
    trainer, _ = train(configure(), host)
    engine = trainer.env.engine
    table = control_table(engine, trainer.assistant, host, questions=6, prompt_questions=3, k=2)
    assert list(table["rows"]) == ["plain", "anchor", "best_prompt", "random", "mean", "shuffled", "trained"]
    assert table["n"] == 6
    for name, row in table["rows"].items():
        assert {"accuracy", "ci", "format", "tokens"} <= set(row)
        assert row["ci"][0] <= row["accuracy"] <= row["ci"][1]
        if name != "trained":
            gap = table["rows"]["trained"]["accuracy"] - row["accuracy"]
            assert table["paired"][name]["difference"] == pytest.approx(gap)
    assert table["rows"]["trained"]["pass_at_k"] >= table["rows"]["trained"]["maj_at_k"] - 1e-9
    again = control_table(engine, trainer.assistant, host, questions=6, prompt_questions=3, k=2)
    assert json.dumps(table) == json.dumps(again)
    rows = trace(engine, trainer.assistant, distinct_items(engine.task, "test", 3))
    assert len(rows) == 3
    assert all(len(row["nearest_tokens"]) == len(row["latent_rms"]) == 2 for row in rows)
    json.dumps(rows)
