"""Splits are a function of a question's words, never of a seed."""

import pytest
import reasoning_gym

from dlr_core.splits import SPLITS, normalise, split_of

SUMS = [f"What is {a} + {b}?" for a in range(60) for b in range(60)]


def test_one_question_in_five_is_test_and_one_in_five_validation() -> None:
    shares = {split: sum(split_of(text) == split for text in SUMS) / len(SUMS) for split in SPLITS}
    error = (0.2 * 0.8 / len(SUMS)) ** 0.5
    assert shares["test"] == pytest.approx(0.2, abs=4 * error)
    assert shares["validation"] == pytest.approx(0.2, abs=4 * error)
    assert shares["train"] == pytest.approx(0.6, abs=5 * error)


def test_known_questions_stay_where_they_are() -> None:
    assert [split_of(text) for text in SUMS[:8]] == [split_of(text) for text in SUMS[:8]]
    assert {split_of(f"q{n}") for n in range(40)} == set(SPLITS)


@pytest.mark.parametrize(
    "variant",
    ["  What is 2 + 3?  ", "what is 2 + 3?", "WHAT IS 2 + 3?", "What\nis\t2  +\u00a03?"],
)
def test_layout_and_case_do_not_change_the_split(variant: str) -> None:
    assert normalise(variant) == normalise("What is 2 + 3?")
    assert split_of(variant) == split_of("What is 2 + 3?")


def test_words_and_digits_do_change_the_question() -> None:
    assert len({normalise(text) for text in SUMS}) == len(SUMS)
    assert normalise("1 2") != normalise("12")


def test_a_shifted_seed_repeats_items_and_still_never_leaks_between_splits() -> None:
    made = {
        seed: [
            str(entry["question"])
            for entry in reasoning_gym.create_dataset("chain_sum", seed=seed, size=150, max_terms=2, min_terms=2)
        ]
        for seed in (1, 99)
    }
    assert made[1][98:] == made[99][:52]  # the trap: a split by seed would share these
    shelves = {
        split: {normalise(text) for texts in made.values() for text in texts if split_of(text) == split}
        for split in SPLITS
    }
    assert all(shelves.values())
    assert not shelves["train"] & shelves["test"]
    assert not shelves["train"] & shelves["validation"]
    assert not shelves["validation"] & shelves["test"]
