"""Solved examples become earlier turns of the chat, and nothing else of the prompt changes."""

import numpy as np
from few_shot import Replies, row, shown

from dlr_core.records import Item


class Chat:
    """A chat template of its own."""

    def apply_chat_template(self, turns, *, add_generation_prompt, tokenize):
        assert add_generation_prompt
        assert not tokenize
        return "<start>" + "".join(f"[{turn['role']}]{turn['content']}[end]" for turn in turns) + "[assistant]"


ITEM, EXAMPLE = Item("2 + 2 =", "4", 0), Item("1 + 1 =", "2", 1)


def test_examples_are_turns_before_the_question():
    (asked,) = shown([ITEM], [EXAMPLE], Chat())
    turns = [{"role": "user", "content": asked.question}]
    assert Chat().apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == (
        "<start>[user]1 + 1 =[end][assistant]2[end][user]2 + 2 =[end][assistant]"
    )
    assert (asked.answer, asked.index) == ("4", 0)


def test_without_examples_a_question_stays_as_it_is():
    assert shown([ITEM], [], Chat()) == [ITEM]


def test_a_row_is_the_mean_over_seeds_and_tells_kinds_apart():
    items = [Item("3 + 4 =", "7", 0), Item("9 - 4 =", "5", 1), Item("4 - 9 =", "-5", 2), Item("5 - 9 =", "-4", 3)]
    seeds = [Replies(np.array([1.0, 0, 0, 1]), 1.0, 0.5), Replies(np.array([1.0, 0, 0, 0]), 0.5, 0.25)]
    shown_row = row("sums", 4, seeds, items)
    assert shown_row[:2] == ["sums", "4"]
    assert shown_row[2].startswith("37.5 [")
    assert shown_row[3:] == ["75", "38", "100.0 (1)", "0.0 (1)", "25.0 (2)"]
