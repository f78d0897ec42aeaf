"""reasoning-gym's generators as tasks."""

from typing import Any

import pytest
from dlr_plugins.tasks.reasoning import ReasoningGym

from dlr_core.errors import ConfigError
from dlr_core.records import Item
from dlr_core.splits import SPLITS, normalise, split_of

SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}


def task(name: str = "chain_sum", **options: Any) -> ReasoningGym:
    return ReasoningGym(ReasoningGym.Options(**options), argument=name)


@pytest.fixture(scope="module")
def sums() -> ReasoningGym:
    return task(pool=60, **SUMS)


def texts(made: ReasoningGym, split: Any) -> list[str]:
    return [normalise(made.item(split, index).question) for index in range(made.size(split))]


def test_a_split_holds_a_pool_of_distinct_questions_of_its_own(sums: ReasoningGym) -> None:
    for split in SPLITS:
        found = texts(sums, split)
        assert len(found) == sums.size(split) == 60
        assert len(set(found)) == 60
        assert {split_of(text) for text in found} == {split}


def test_indices_wrap_around_and_number_the_items(sums: ReasoningGym) -> None:
    assert [sums.item("test", index).index for index in (0, 1, 59)] == [0, 1, 59]
    assert sums.item("test", 60) == sums.item("test", 0)


def test_a_small_generator_runs_dry_without_repeating_itself() -> None:
    small = task(pool=5000, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    found = [text for split in SPLITS for text in texts(small, split)]
    assert 100 < len(found) < 400
    assert len(set(found)) == len(found)
    for split in SPLITS:
        size = small.size(split)
        assert [small.item(split, index).index for index in range(size)] == list(range(size))


def test_the_same_options_give_the_same_questions_in_any_order(sums: ReasoningGym) -> None:
    again = task(pool=60, **SUMS)
    assert texts(again, "validation") == texts(sums, "validation")
    assert texts(again, "train") == texts(sums, "train")


def test_a_larger_pool_begins_with_the_smaller_one(sums: ReasoningGym) -> None:
    assert texts(task(pool=20, **SUMS), "test") == texts(sums, "test")[:20]


def test_an_unknown_generator_is_offered_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"generator named 'chain_sun'; did you mean 'chain_sum'\?"):
        task("chain_sun")


def test_all_unknown_options_are_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        task(min_term=2, max_digit=2)
    assert caught.value.problems == (
        "no option of chain_sum named 'min_term'; did you mean 'min_terms'?",
        "no option of chain_sum named 'max_digit'; did you mean 'max_digits'?",
    )


@pytest.mark.parametrize("key", ["seed", "size"])
def test_seed_and_size_are_not_the_users_to_set(key: str) -> None:
    with pytest.raises(ConfigError, match=f"no option of chain_sum named '{key}'"):
        task(**{key: 3})


@pytest.mark.parametrize("options", [{"min_terms": 5, "max_terms": 2}, {"min_terms": "two"}])
def test_option_values_that_the_generator_refuses_are_a_config_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"task reasoning-gym:chain_sum: \S"):
        task(**options)


def test_the_gold_answer_is_right_and_any_other_number_is_wrong(sums: ReasoningGym) -> None:
    for index in range(10):
        item = sums.item("train", index)
        right = sums.score(item, f"Well, 3 and 4 aside, it is {item.answer}.", True)
        assert (right.parsed, right.correct, right.format) == (item.answer, 1.0, 1.0)
        wrong = sums.score(item, f"It is {item.answer}, no, {int(item.answer) + 1}", True)
        assert (wrong.parsed, wrong.correct, wrong.format) == (str(int(item.answer) + 1), 0.0, 1.0)


def test_gold_text_is_itself_judged_right(sums: ReasoningGym) -> None:
    for index in range(10):
        item = sums.item("validation", index)
        assert sums.score(item, sums.gold_text(item), True).correct == 1.0


def test_the_format_needs_an_answer_and_an_end(sums: ReasoningGym) -> None:
    item = sums.item("train", 0)
    cut = sums.score(item, item.answer, False)
    assert (cut.correct, cut.format) == (1.0, 0.0)
    empty = sums.score(item, "I cannot say.", True)
    assert (empty.parsed, empty.correct, empty.format) == (None, 0.0, 0.0)


def test_an_answer_in_words_is_read_from_its_tag_or_taken_whole() -> None:
    letters = task("spell_backward", pool=5)
    item = letters.item("train", 0)
    assert letters.score(item, item.answer, True).correct == 1.0
    tagged = letters.score(item, f"Let me see. <answer> {item.answer} </answer>", True)
    assert (tagged.parsed, tagged.correct) == (item.answer, 1.0)
    assert letters.score(item, "<answer>zzz</answer>", True).correct == 0.0
    blank = letters.score(item, "   ", True)
    assert (blank.parsed, blank.correct, blank.format) == (None, 0.0, 0.0)


def test_consolation_for_a_wrong_answer_and_a_verifier_that_raises_count_as_nothing(
    sums: ReasoningGym, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = sums.item("train", 0)

    def judge(score: Any) -> float:
        def score_answer(answer: str, entry: dict[str, Any]) -> float:
            if isinstance(score, Exception):
                raise score
            return float(score)

        monkeypatch.setattr(sums._dataset, "score_answer", score_answer)
        return sums.score(item, "5", True).correct

    assert [judge(0.01), judge(0.05), judge(0.5), judge(1), judge(KeyError("x"))] == [0.0, 0.0, 0.5, 1.0, 0.0]


def test_judging_leaves_the_item_alone(sums: ReasoningGym) -> None:
    item = sums.item("train", 1)
    before = (item, dict(item.metadata))
    sums.score(item, item.answer, True)
    assert (sums.item("train", 1), dict(item.metadata)) == before
    assert isinstance(item, Item)
