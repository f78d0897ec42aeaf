"""Recommendation as ranking, and its reward."""

import json

import pytest
from dlr_plugins.rewards.ranking import Ranking
from dlr_plugins.tasks.recommendation import Recommendation, Row

from dlr_core.errors import DataError
from dlr_core.records import Sample
from dlr_core.splits import SPLITS, split_of

FILMS = ["Alien", "Heat", "Ran", "Stalker", "Tampopo"]


def row(number=0, **changes):
    made = {"history": [f"film {number}", "Solaris"], "candidates": FILMS, "chosen": FILMS[number % 5]}
    return {**made, **changes}


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "users.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(60)))
    return Recommendation(Recommendation.Options(path=str(path)))


def every(task):
    return [task.item(split, index) for split in SPLITS for index in range(task.size(split))]


def test_every_row_is_on_the_shelf_of_its_split(task):
    assert len(every(task)) == 60
    for split in SPLITS:
        assert task.size(split) > 0
        assert all(split_of(task.item(split, index).question) == split for index in range(task.size(split)))


def test_the_answer_is_the_letter_that_the_chosen_one_bears_and_the_files_order_does_not_show(task):
    for item in every(task):
        number = int(item.question.split("film ")[1].split(";")[0])
        assert f"{item.answer}) {FILMS[number % 5]}" in item.question
    assert len({item.answer for item in every(task)}) == 5
    turned = [Row(**row(7, candidates=order)).posed(10) for order in (FILMS, FILMS[::-1])]
    assert turned[0] == turned[1]


def test_only_the_newest_items_of_a_history_are_shown():
    question, _ = Row(**row(history=[f"film {n}" for n in range(9)])).posed(3)
    assert "A user chose: film 6; film 7; film 8." in question


@pytest.mark.parametrize(
    ("completion", "parsed"),
    [(" C", "C"), ("B, A, then C.", "BAC"), ("A A B", "AB"), ("Z) nothing", None), ("a Cat", None), ("", None)],
)
def test_a_ranking_is_the_letters_in_the_order_in_which_they_are_first_named(task, completion, parsed):
    item = task.item("train", 0)
    verdict = task.score(item, completion, True)
    assert verdict.parsed == parsed
    assert verdict.correct == float(parsed is not None and parsed[0] == item.answer)
    assert verdict.format == float(parsed is not None)
    assert task.score(item, completion, False).format == 0.0


def test_gold_is_right_and_keeps_the_format(task):
    for item in every(task):
        verdict = task.score(item, task.gold_text(item), True)
        assert (verdict.correct, verdict.format) == (1.0, 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"chosen": "Vertigo"}, {"candidates": ["Alien"]}, {"candidates": ["Alien", "Alien"], "chosen": "Alien"},
        {"candidates": [str(n) for n in range(27)], "chosen": "3"}, {"history": "Solaris"}, {"chosen": 3},
        {"candidates": None},
    ],
)  # fmt: skip
def test_a_row_of_another_shape_is_named_by_its_line(tmp_path, changes):
    path = tmp_path / "users.jsonl"
    path.write_text(json.dumps(row()) + "\n\n" + json.dumps(row(1, **changes)) + "\n")
    with pytest.raises(DataError, match=r"users\.jsonl:3: expected texts in 'history'"):
        Recommendation(Recommendation.Options(path=str(path)))


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no questions"):
        Recommendation(Recommendation.Options(path=str(tmp_path / "empty.jsonl")))


@pytest.mark.parametrize(
    ("parsed", "gain"), [("B", 1.0), ("AB", 0.6309), ("CAB", 0.5), ("CADB", 0.0), ("CAD", 0.0), (None, 0.0)]
)
def test_the_reward_is_the_discounted_gain_of_the_wanted_one(parsed, gain):
    sample = Sample("q", "B", "", parsed, float((parsed or "")[:1] == "B"), 1.0, 3, True)
    assert Ranking(Ranking.Options(cutoff=3, format_weight=0.0))(sample) == pytest.approx(gain, abs=1e-4)
    assert Ranking(Ranking.Options(cutoff=3, format_weight=0.5))(sample) == pytest.approx(gain + 0.5, abs=1e-4)


def test_the_rewards_format_weight_is_lost_with_the_format():
    for keeps, expected in ((0.0, 1.0), (0.5, 1.15), (1.0, 1.3)):
        sample = Sample("q", "B", "", "B", 1.0, keeps, 3, True)
        assert Ranking(Ranking.Options(format_weight=0.3))(sample) == pytest.approx(expected)
