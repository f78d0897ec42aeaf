"""GSM8K from a file, and answers checked with math-verify."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dlr_plugins.tasks import mathcheck
from dlr_plugins.tasks.gsm8k import GSM8K, gold, read_jsonl
from dlr_plugins.tasks.mathcheck import equivalent

from dlr_core.errors import DataError
from dlr_core.records import Item
from dlr_core.splits import SPLITS, split_of

HALF = r"so we get \boxed{\frac{1}{2}}"


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path: Path) -> GSM8K:
    rows = [{"question": f"What is {n} plus {n}?", "answer": f"It doubles.\n#### {2 * n}"} for n in range(40)]
    return GSM8K(GSM8K.Options(path=str(write(tmp_path / "sums.jsonl", rows))))


def test_every_question_is_on_the_shelf_of_its_split(task: GSM8K) -> None:
    assert sum(task.size(split) for split in SPLITS) == 40
    for split in SPLITS:
        items = [task.item(split, index) for index in range(task.size(split))]
        assert all(split_of(item.question) == split for item in items)
        assert len({item.question for item in items}) == len(items)
        assert [item.index for item in items] == list(range(len(items)))
        assert task.item(split, len(items)) == items[0]


def test_the_gold_answer_follows_the_hashes(task: GSM8K) -> None:
    item = task.item("train", 0)
    assert int(item.answer) == 2 * int(item.question.split()[2])
    assert task.gold_text(item) == f" {item.answer}"
    assert gold("a #### b\n#### 1,234 ") == "1,234"
    assert gold(" 17 ") == "17"


def test_an_empty_split_is_a_data_error(tmp_path: Path) -> None:
    question = next(text for n in range(50) if split_of(text := f"q{n}") == "train")
    task = GSM8K(GSM8K.Options(path=str(write(tmp_path / "one.jsonl", [{"question": question, "answer": "1"}]))))
    assert task.size("test") == 0
    with pytest.raises(DataError, match="no test question"):
        task.item("test", 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "expected an object"),
        ('"text"', "expected an object"),
        ('{"question": "q"}', "expected an object"),
        ('{"question": "q", "answer": 4}', "expected an object"),
        ('{"question": "  ", "answer": "4"}', "expected an object"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "q", "answer": "1"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=reason) as caught:
        read_jsonl(path)
    assert str(caught.value).startswith(f"{path}:3: ")


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
def test_a_line_ends_at_a_line_feed_and_nowhere_else(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    question = f"Two{separator}parts?"
    line = json.dumps({"question": question, "answer": "1"}, ensure_ascii=False)
    path.write_text(line + "\r\n{oops\n", encoding="utf-8", newline="")
    with pytest.raises(DataError, match=":2: not JSON"):
        read_jsonl(path)


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\x00"])
def test_a_missing_empty_or_binary_file_is_a_data_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.jsonl"):
        read_jsonl(path)


@pytest.mark.parametrize(
    ("answer", "completion", "parsed", "correct"),
    [
        ("1,234", "It is 1234.", "1234", 1.0),
        ("5", "2 + 3 = 5.0", "5", 1.0),
        ("5", "The answer is 6", "6", 0.0),
        ("5", "5 was my first thought, but 6", "6", 0.0),
        ("5", "no idea", None, 0.0),
        ("-3", "= -3", "-3", 1.0),
    ],
)
def test_a_number_is_judged_by_the_last_one_said(
    answer: str, completion: str, parsed: str | None, correct: float, task: GSM8K
) -> None:
    verdict = task.score(Item("q", answer, 0), completion, ended=True)
    assert (verdict.parsed, verdict.correct) == (parsed, correct)
    assert verdict.format == float(parsed is not None)
    assert task.score(Item("q", answer, 0), completion, ended=False).format == 0.0


def test_an_expression_is_judged_by_its_value(task: GSM8K) -> None:
    assert task.score(Item("q", "1/2", 0), HALF, True).correct == 1.0
    assert task.score(Item("q", "0.5", 0), HALF, True).correct == 1.0
    assert task.score(Item("q", "1/3", 0), HALF, True).correct == 0.0


def test_equality_works_on_another_thread() -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda gold=gold: found.append(equivalent(gold, HALF))) for gold in ("1/2", "2/3")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [False, True]


def test_a_checker_that_hangs_is_given_up_at_the_limit_and_replaced() -> None:
    assert equivalent("1/2", HALF)
    process = mathcheck.JUDGE.process
    os.kill(process.pid, signal.SIGSTOP)  # it will never answer
    start = time.monotonic()
    assert not equivalent("1/2", HALF, limit=0.3)
    assert 0.25 < time.monotonic() - start < 3.0
    assert equivalent("1/2", HALF)


def test_a_script_without_a_main_guard_can_check_answers(tmp_path: Path) -> None:
    script = tmp_path / "plain_script.py"
    script.write_text(
        f"print('once')\nfrom dlr_plugins.tasks.mathcheck import equivalent\nprint(equivalent('1/2', {HALF!r}))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["once", "True"]
    assert done.stderr == ""


def test_a_checker_that_died_between_two_answers_is_replaced_and_costs_neither() -> None:
    assert equivalent("1/2", HALF)
    mathcheck.JUDGE.process.kill()
    mathcheck.JUDGE.process.wait()
    assert equivalent("1/2", HALF)
