"""A small share of the generated bad input: no traceback, no hang, no file outside, no pickle, no code."""

import os
import tempfile

import bad_input
import pytest
from hypothesis.configuration import set_hypothesis_home_dir


@pytest.fixture(scope="module")
def result(tiny_model, tmp_path_factory):
    room = tmp_path_factory.mktemp("room")
    (room / "tmp").mkdir()
    kept, before = tempfile.tempdir, {**os.environ}
    os.environ |= {"HF_HUB_OFFLINE": "1", "DLR_CACHE": str(room / "cache"), "TMPDIR": str(room / "tmp")}
    set_hypothesis_home_dir(room / "hypothesis")
    tempfile.tempdir = str(room / "tmp")
    here = os.getcwd()
    os.chdir(room)
    try:
        shop = bad_input.prepare(room, tiny_model)
        return bad_input.attack_all(shop, bad_input.Watch(room), 0.008, 7, print, lines=12, processes=0)
    finally:
        os.chdir(here)
        tempfile.tempdir = kept
        os.environ.clear()
        os.environ |= before
        set_hypothesis_home_dir(None)


def test_nothing_answers_with_a_traceback_or_hangs(result):
    found = [example for family in result["families"] for example in family["examples"]]
    assert found + result["command_line_examples"] == []
    assert result["in_process"]["tracebacks"] == result["in_process"]["hangs"] == 0
    assert result["command_line"]["tracebacks"] == result["command_line"]["hangs"] == 0


def test_most_of_it_is_refused_and_some_of_it_is_fine(result):
    assert result["in_process"]["tried"] > 70
    assert result["in_process"]["refused"] > result["in_process"]["accepted"] > 0
    assert result["command_line"]["tried"] == 12


def test_no_file_is_written_outside_no_pickle_is_loaded_and_no_code_runs(result):
    assert result["files_outside"] == []
    assert result["pickled_classes"] == []
    assert result["code_executed"] == []


def test_the_watch_sees_what_it_is_for(tmp_path):
    import pickle
    from collections import OrderedDict

    watch = bad_input.Watch(tmp_path / "room")
    watch.on = True
    (tmp_path / "outside").write_text("x")
    (tmp_path / "folder").mkdir()
    pickle.loads(pickle.dumps(OrderedDict()))
    watch.on = False
    assert watch.outside == {str(tmp_path / "outside"), str(tmp_path / "folder")}
    assert watch.pickles


def test_an_endless_input_is_a_hang(monkeypatch):
    monkeypatch.setattr(bad_input, "CPU_SECONDS", 0.05)

    def endless():
        while True:
            pass

    with pytest.raises(bad_input.Hang), bad_input.limited():
        endless()


def test_a_command_that_ends_in_a_traceback_or_without_a_reason_is_found():
    assert bad_input.judge(2, "error: no such thing\n") is None
    assert bad_input.judge(0, "") is None
    assert bad_input.judge(2, "something\n") == "no error line"
    assert bad_input.judge(1, "Traceback (most recent call last):\n") == "traceback"
    assert bad_input.judge(-11, "") == "exit code -11"
