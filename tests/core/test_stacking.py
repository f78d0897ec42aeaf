"""Prompts put together in one batch: each as it was, what all begin with once."""

from dataclasses import replace

import torch

from dlr_core.records import Beginning, PromptCache
from dlr_core.stacking import stack

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


def test_what_beginnings_begin_with_is_in_front_of_all_and_the_rest_of_each_in_its_own_row() -> None:
    full = [prompt(7, 0), prompt(6, 1), prompt(6, 2)]
    same = prompt(2, 9)  # what all of them begin with
    rows, starts = [], []
    for number, (one, fixed) in enumerate(zip(full, (3, 4, 3), strict=True)):
        keys = tuple(torch.cat([a, b[:, :, 2:]], 2) for a, b in zip(same.keys, one.keys, strict=True))
        values = tuple(torch.cat([a, b[:, :, 2:]], 2) for a, b in zip(same.values, one.values, strict=True))
        ids = (1, 2, *([number] * (fixed - 2)))
        front, back = (tuple(t[:, :, part] for t in keys) for part in (slice(fixed), slice(fixed, None)))
        front_values, back_values = (
            tuple(t[:, :, part] for t in values) for part in (slice(fixed), slice(fixed, None))
        )
        starts.append(Beginning(ids, front, front_values, one.states_NSH[:, :fixed]))
        rows.append(replace(one, keys=back, values=back_values, states_NSH=one.states_NSH[:, fixed:]))
        full[number] = replace(one, keys=keys, values=values)
    found = stack(rows, starts)
    assert found.trunk is not None
    assert found.trunk.beginning is not None
    assert found.trunk.beginning.ids == (1, 2)
    for number, one in enumerate(full):
        row = found.select(torch.tensor([number])).whole()
        real = row.mask_NS[0].bool()
        for mine, other in zip([*row.keys, *row.values], [*one.keys, *one.values], strict=True):
            assert torch.equal(mine[:, :, real], other)
        assert torch.equal(row.states_NSH[:, real], one.states_NSH)
        assert row.mask_NS[0, : starts[number].length].all()  # padding stands after the beginning
    assert stack(rows[:1], [None]).trunk is None
    assert stack(rows, [starts[0], None, starts[2]]).trunk is None
