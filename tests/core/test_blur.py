"""Noise on the states that replayed chains are written from."""

import torch

from dlr_core.rehearsal import spread


def test_the_spread_is_taken_over_real_rows_alone_and_is_zero_where_all_agree() -> None:
    states_NSH = torch.tensor([[[float("nan")], [7.0], [1.0]], [[5.0], [7.0], [3.0]], [[9.0], [7.0], [5.0]]])
    mask_NS = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 1, 1]])
    expected = [2.0, 0.0, (8 / 3) ** 0.5]  # of (5, 9), of (7, 7, 7), of (1, 3, 5)
    torch.testing.assert_close(spread(states_NSH, mask_NS)[:, 0], torch.tensor(expected))
