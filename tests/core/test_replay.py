"""Remembered successes."""

import json

import pytest
import torch

from dlr_core.frontier import Frontier
from dlr_core.records import Item
from dlr_core.replay import ReplayBuffer, Success, padded


def success(number: int, weight: float = 1.0, ids: tuple[int, ...] = (7, 8)) -> Success:
    return Success(Item(f"q{number}", "", number), ids, weight)


def test_a_question_has_one_success_the_newest() -> None:
    buffer = ReplayBuffer(3)
    for number, ids in ((0, (1,)), (1, (2,)), (0, (3, 4)), (2, (5,)), (1, (6,))):
        buffer.add(success(number, ids=ids))
    assert [(entry.item.index, entry.ids) for entry in buffer.entries] == [(0, (3, 4)), (2, (5,)), (1, (6,))]


def test_the_oldest_success_is_forgotten_when_full() -> None:
    buffer = ReplayBuffer(3)
    for number in range(5):
        buffer.add(success(number))
    assert [entry.item.index for entry in buffer.entries] == [2, 3, 4]


def test_successes_are_drawn_in_proportion_to_their_weights() -> None:
    buffer, draws = ReplayBuffer(8), 4000
    weights = (1.0, 3.0, 0.0, 4.0)
    for number, weight in enumerate(weights):
        buffer.add(success(number, weight, ids=(number,)))
    drawn = buffer.sample(draws, torch.Generator().manual_seed(0))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        error = (share * (1 - share) / draws) ** 0.5
        assert sum(each.item.index == number for each in drawn) / draws == pytest.approx(share, abs=4.5 * error)


def test_completions_are_padded_on_the_right_and_masked() -> None:
    ids, mask = padded([success(0, ids=(1, 2, 3)), success(1, ids=(9,))], torch.device("cpu"))
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids[0].tolist() == [1, 2, 3]
    assert int(ids[1, 0]) == 9


def test_reweighing_changes_what_was_drawn_and_nothing_else() -> None:
    buffer = ReplayBuffer(4)
    for number in range(3):
        buffer.add(success(number, weight=float(number == 1), ids=(number,)))
    assert [each.ids for each in buffer.sample(2, torch.Generator().manual_seed(0))] == [(1,), (1,)]
    buffer.reweigh([0.5, 0.0])
    assert [entry.weight for entry in buffer.entries] == [0.0, 0.0, 0.0]
    buffer.entries[2] = success(2, weight=2.0, ids=(2,))
    buffer.sample(1, torch.Generator().manual_seed(0))
    buffer.reweigh([3.0])
    assert [entry.weight for entry in buffer.entries] == [0.0, 0.0, 3.0]


def test_the_same_generator_state_draws_the_same_replay() -> None:
    buffer = ReplayBuffer(8)
    for number in range(6):
        buffer.add(success(number, ids=(number,)))
    draws = [buffer.sample(10, torch.Generator().manual_seed(seed)) for seed in (2, 2, 3)]
    assert draws[0] == draws[1] != draws[2]


def test_state_and_restore_are_a_round_trip() -> None:
    items = [Item(text, "", index) for index, text in enumerate("abc")]
    buffer, restored = ReplayBuffer(8), ReplayBuffer(8)
    for index, ids, weight in ((1, (4, 5), 0.5), (2, (7, 8, 9), 2.0), (0, (6,), 1.0)):
        buffer.add(Success(items[index], ids, weight))
    restored.restore(json.loads(json.dumps(buffer.state())), items.__getitem__)
    assert restored.entries == buffer.entries
    one, two = (each.sample(12, torch.Generator().manual_seed(5)) for each in (buffer, restored))
    assert one == two


def test_the_frontier_keeps_the_newest_unsolved_questions_and_draws_without_repeats() -> None:
    frontier = Frontier(3)
    for number in range(5):
        frontier.add(Item(f"q{number}", "", number))
    assert list(frontier.waiting) == ["q2", "q3", "q4"]
    first = frontier.waiting["q3"]
    frontier.add(Item("q3", "", 99))
    assert frontier.waiting["q3"] is first
    frontier.solve("q3")
    frontier.solve("unknown")
    assert list(frontier.waiting) == ["q2", "q4"]
    generator = torch.Generator().manual_seed(0)
    counts = {"q2": 0, "q4": 0}
    for _ in range(400):
        (drawn,) = frontier.draw(1, generator)
        counts[drawn.question] += 1
    assert min(counts.values()) > 160
    assert {item.question for item in frontier.draw(9, generator)} == {"q2", "q4"}
    assert frontier.draw(-1, generator) == []
