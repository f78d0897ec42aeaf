"""Questions that a part is calibrated on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dlr_core import questions
from dlr_core.questions import calibration_states
from dlr_core.records import Item

TEXTS = ["Hi", "What is 2 + 2?", "Name a prime number between 20 and 30, please.", "3 * 4 =", "Say 7.", "No", "Yes?"]


def test_states_in_parts_are_those_of_all_at_once_padded_on_the_left(
    tiny_decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor, asked = tiny_decoder.encode("Result:"), []

    def prefill(texts: list[str]) -> Any:
        asked.append(len(texts))
        return tiny_decoder.prefill(texts, anchor[:-1], anchor[-1:], len(anchor) - 1)

    task = SimpleNamespace(size=lambda split: len(TEXTS), item=lambda split, index: Item(TEXTS[index], "", index))
    engine = SimpleNamespace(task=task, prefill=prefill)
    whole_NSH, whole_NS = calibration_states(engine)
    monkeypatch.setattr(questions, "AT_ONCE", 2)
    states_NSH, mask_NS = calibration_states(engine)
    assert asked == [7, 2, 2, 2, 1]
    assert states_NSH.shape == whole_NSH.shape
    assert mask_NS.sum(1).tolist() == whole_NS.sum(1).tolist()
    for one, many, kept, real in zip(whole_NSH, states_NSH, whole_NS.bool(), mask_NS.bool(), strict=True):
        torch.testing.assert_close(many[real], one[kept], atol=2e-4, rtol=1e-3)
        assert bool(real[-1])
