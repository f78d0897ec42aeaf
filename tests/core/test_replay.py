"""Remembered successes."""

from collections.abc import Sequence

import pytest
import torch

from dlr_core.frontier import Frontier, Prompt, prompts
from dlr_core.records import Item, PromptCache
from dlr_core.replay import ReplayBuffer, Success, stack

LAYERS, HEADS, WIDTH, HIDDEN, LATENTS = 2, 3, 4, 5, 2


def prompt(length: int, seed: int, rows: int = 1) -> PromptCache:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return PromptCache(
        tuple(draw(rows, HEADS, length, WIDTH) for _ in range(LAYERS)),
        tuple(draw(rows, HEADS, length, WIDTH) for _ in range(LAYERS)),
        torch.ones(rows, length, dtype=torch.int64),
        draw(rows, length, HIDDEN),
        draw(rows, 1, HIDDEN),
        LATENTS,
    )


def kept(number: int, length: int = 4) -> Prompt:
    return Prompt(Item(f"q{number}", "", number), (f"q{number}",), 0, prompt(length, number))


def success(number: int, weight: float = 1.0, ids: tuple[int, ...] = (7, 8), length: int = 4) -> Success:
    return Success(kept(number, length), ids, weight)


def test_stacking_pads_on_the_left_and_keeps_every_original() -> None:
    parts = [prompt(5, 0), prompt(3, 1), prompt(4, 2)]
    whole = stack(parts)
    assert whole.rows == 3
    assert whole.num_latents == LATENTS
    assert whole.mask_NS.tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert whole.mask_NS.dtype == torch.int64
    for row, part in enumerate(parts):
        length = part.mask_NS.shape[1]
        for layer in range(LAYERS):
            assert torch.equal(whole.keys[layer][row, :, -length:], part.keys[layer][0])
            assert torch.equal(whole.values[layer][row, :, -length:], part.values[layer][0])
            assert not whole.keys[layer][row, :, :-length].any()
        assert torch.equal(whole.states_NSH[row, -length:], part.states_NSH[0])
        assert torch.equal(whole.pending_NPH[row], part.pending_NPH[0])
        assert torch.equal(whole.positions_NS[row, -length:], part.positions_NS[0])


def test_stacking_equal_lengths_changes_nothing() -> None:
    both = prompt(4, 3, rows=2)
    again = stack([both.select(torch.tensor([0])), both.select(torch.tensor([1]))])
    assert torch.equal(again.keys[1], both.keys[1])
    assert torch.equal(again.states_NSH, both.states_NSH)


def test_the_oldest_success_is_forgotten_when_full() -> None:
    buffer = ReplayBuffer(3)
    for number in range(5):
        buffer.add(success(number))
    assert [entry.prompt.item.index for entry in buffer.entries] == [2, 3, 4]


def test_successes_are_drawn_in_proportion_to_their_weights() -> None:
    buffer, draws = ReplayBuffer(8), 4000
    weights = (1.0, 3.0, 0.0, 4.0)
    for number, weight in enumerate(weights):
        buffer.add(success(number, weight, ids=(number,)))
    _, ids, _ = buffer.sample(draws, torch.Generator().manual_seed(0))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        error = (share * (1 - share) / draws) ** 0.5
        assert float((ids[:, 0] == number).double().mean()) == pytest.approx(share, abs=4.5 * error)


def test_completions_are_padded_on_the_right_and_masked() -> None:
    buffer = ReplayBuffer(8)
    buffer.add(success(0, ids=(1, 2, 3)))
    buffer.add(success(1, ids=(9,), length=6))
    cache, ids, mask = buffer.sample(40, torch.Generator().manual_seed(1))
    assert cache.mask_NS.shape == (40, 6)
    for row in range(40):
        real = ids[row][mask[row].bool()].tolist()
        assert real in ([1, 2, 3], [9])
        source = buffer.entries[0 if real == [1, 2, 3] else 1].prompt.cache
        assert torch.equal(cache.pending_NPH[row], source.pending_NPH[0])
    assert sorted({int(n) for n in mask.sum(1)}) == [1, 3]
    assert bool((mask.diff(dim=1) <= 0).all())


def test_reweighing_changes_what_was_drawn_and_nothing_else() -> None:
    buffer = ReplayBuffer(4)
    for number in range(3):
        buffer.add(success(number, weight=float(number == 1), ids=(number,)))
    _, ids, _ = buffer.sample(2, torch.Generator().manual_seed(0))
    assert ids.tolist() == [[1], [1]]
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
    draws = [buffer.sample(10, torch.Generator().manual_seed(seed))[1].tolist() for seed in (2, 2, 3)]
    assert draws[0] == draws[1] != draws[2]


def test_state_and_restore_are_a_round_trip() -> None:
    cohorts = {("a", "b"): prompt(5, 10, rows=2), ("c",): prompt(3, 11)}
    items = [Item(text, "", index) for index, text in enumerate("abc")]
    buffer = ReplayBuffer(8)
    for index, cohort, row, ids, weight in (
        (1, ("a", "b"), 1, (4, 5), 0.5), (2, ("c",), 0, (7, 8, 9), 2.0), (0, ("a", "b"), 0, (6,), 1.0),
    ):  # fmt: skip
        cache = cohorts[cohort].select(torch.tensor([row]))
        buffer.add(Success(Prompt(items[index], cohort, row, cache), ids, weight))
    asked: list[tuple[str, ...]] = []

    def prefill(questions: Sequence[str]) -> PromptCache:
        asked.append(tuple(questions))
        return cohorts[tuple(questions)]

    restored = ReplayBuffer(8)
    restored.restore(buffer.state(), prefill, items.__getitem__)
    assert sorted(asked) == [("a", "b"), ("c",)]
    assert restored.state() == buffer.state()
    for old, new in zip(buffer.entries, restored.entries, strict=True):
        assert old.prompt.item == new.prompt.item
        assert torch.equal(old.prompt.cache.keys[0], new.prompt.cache.keys[0])
        assert torch.equal(old.prompt.cache.states_NSH, new.prompt.cache.states_NSH)
    one, two = (held.sample(12, torch.Generator().manual_seed(5)) for held in (buffer, restored))
    assert torch.equal(one[1], two[1])
    assert torch.equal(one[0].keys[1], two[0].keys[1])


def test_the_frontier_keeps_the_newest_unsolved_questions_and_draws_without_repeats() -> None:
    frontier = Frontier(3)
    for number in range(5):
        frontier.add(kept(number))
    assert list(frontier.waiting) == ["q2", "q3", "q4"]
    first = frontier.waiting["q3"]
    frontier.add(kept(3))
    assert frontier.waiting["q3"] is first
    frontier.solve("q3")
    frontier.solve("unknown")
    assert list(frontier.waiting) == ["q2", "q4"]
    generator = torch.Generator().manual_seed(0)
    counts = {"q2": 0, "q4": 0}
    for _ in range(400):
        (drawn,) = frontier.draw(1, generator)
        counts[drawn.item.question] += 1
    assert min(counts.values()) > 160
    assert {p.item.question for p in frontier.draw(9, generator)} == {"q2", "q4"}
    assert frontier.draw(-1, generator) == []


def test_chains_of_one_question_share_their_prompt() -> None:
    items = [Item("a", "", 0), Item("a", "", 0), Item("b", "", 5)]
    cache = prompt(4, 7, rows=2)
    made = prompts(items, cache, torch.tensor([0, 0, 1]))
    assert made[0] is made[1]
    assert [(p.item.index, p.row, p.cohort) for p in made[1:]] == [(0, 0, ("a", "b")), (5, 1, ("a", "b"))]
    assert torch.equal(made[2].cache.keys[0], cache.keys[0][1:])
