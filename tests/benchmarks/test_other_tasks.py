"""What is left of other tasks: asked before and after training, with what was trained on and off."""

import learning
import other_tasks
import pytest
from pieces import Pieces

from dlr_core.errors import ConfigError
from dlr_core.questions import distinct_items
from dlr_core.records import Sample

SMALL = {
    "task.pool": 40, "decoder.max_new_tokens": 3, "space.num_latents": 2, "space.latent_dim": 4, "steps": 6,
    "assistant.width": 16, "assistant.layers": 1, "batch.questions": 2, "batch.samples": 4, "optim.lr": 0.5,
}  # fmt: skip


def judged(item, correct):
    return Sample(item.question, item.answer, "", None, correct, 1.0, 1, True)


class Room:
    """An engine of some task."""

    def __init__(self, task=None, limit=0):
        self.task, self.limit = task, limit

    def on(self, task, limit):
        return Room(task, limit)


def test_each_of_the_other_tasks_is_asked_an_equal_number_of_test_questions_every_way(host):
    seen = {}

    def odd(on):
        def answer(items):
            seen[len(seen)] = (on.limit, [item.question for item in items])
            return [judged(item, float(number % 2)) for number, item in enumerate(items)]

        return answer

    asked = other_tasks.ask(Room(), host, {"off": odd, "on": odd}, 17)
    assert list(asked) == list(other_tasks.OTHER_TASKS)
    assert [len(own["on"]) for own in asked.values()] == [4, 4, 3, 3, 3]
    assert asked[other_tasks.OTHER_TASKS[2]]["off"] == [0.0, 1.0, 0.0]
    assert seen[0] == seen[1] != seen[2]
    task = host.create("task", other_tasks.OTHER_TASKS[0])
    assert seen[0] == (16, [item.question for item in distinct_items(task, "test", 4)])


def rounds(before, off, on):
    return {task: {"before": before, "off": off, "on": on} for task in other_tasks.OTHER_TASKS}


def test_what_is_gained_is_a_mean_over_seeds_whose_interval_draws_questions():
    half = [0.0, 1.0] * 20
    first, second = rounds(half, half, [1.0] * 40), rounds(half, [0.0] * 40, [1.0] * 40)
    own = other_tasks.kept([first, second])[other_tasks.OTHER_TASKS[0]]
    assert (own["n"], own["before"]) == (40, 0.5)
    assert own["off"]["difference"] == pytest.approx(-0.25)
    assert own["on"]["difference"] == pytest.approx(0.5)
    alone = other_tasks.kept([second])[other_tasks.OTHER_TASKS[0]]
    assert own["on"]["ci"] == alone["on"]["ci"]  # as many questions, however many seeds
    assert own["off"]["ci"][0] > alone["off"]["ci"][0]
    sheet = other_tasks.sheet({"ours": other_tasks.kept([first])})
    assert sheet.rows[0][:6] == ("ours", "reasoning-gym:letter_counting", "40", "50.0", "", "+0.0 [+0.0, +0.0]")
    assert sheet.rows[0][6].startswith("+50.0 [")
    asked = {task: {**own, "prompt": half[::-1]} for task, own in first.items()}
    assert other_tasks.common([asked]) == ["before", "prompt", "off", "on"]
    assert other_tasks.common([asked, second]) == ["before", "off", "on"]  # of a piece made before the prompt was asked


def test_a_task_that_is_asked_before_and_after_is_not_trained_on(tmp_path, tiny_model):
    with pytest.raises(ConfigError, match="syllogism is one of the five"):
        learning.main([
            "piece", "dlr", "--set", "env=dlr/Reasoning-v0", "--set", "task.name=reasoning-gym:syllogism",
            "--main-model", str(tiny_model), "--pieces", str(tmp_path),
        ])  # fmt: skip


@pytest.mark.parametrize("method", ["dlr", "peft-prefix", "peft-prompt"])
def test_what_is_trained_beside_a_frozen_model_is_there_when_it_is_on_and_gone_when_it_is_off(
    tmp_path, tiny_model, monkeypatch, method
):
    asked = []

    def ask(engine, host, ways, count=12):
        items = distinct_items(engine.task, "test", count)
        asked.append({way: [sample.completion for sample in how(engine)(items)] for way, how in ways.items()})
        return {"": {way: [0.0] for way in ways}}

    monkeypatch.setattr(other_tasks, "ask", ask)
    if method != "dlr":
        pytest.importorskip("peft")
    rate = ["--rate", "0.5"] if method != "dlr" else []
    small = {**SMALL, "estimator": "likelihood"}  # gold answers teach in so few steps what reward could not
    more = (part for key, value in small.items() for part in ("--set", f"{key}={value}"))
    learning.main([
        "piece", method, *rate, "--minutes", "9", "--pieces", str(tmp_path), "--main-model", str(tiny_model),
        "--questions", "4", "--probes", "2", *more,
    ])  # fmt: skip
    before, after = asked
    assert before["before"] == after["off"]
    assert after["on"] not in (after["off"], before["prompt"])
    piece = next(iter(Pieces(tmp_path).read().values()))
    assert piece["others"] == {"": {way: [0.0] for way in ("before", "prompt", "off", "on")}}
    assert piece["gold"]
    assert [point["steps"] for point in piece["curve"]] == [0, 3, 6]
    assert 0 == piece["curve"][0]["flops"] < piece["curve"][1]["flops"] < piece["curve"][2]["flops"]
