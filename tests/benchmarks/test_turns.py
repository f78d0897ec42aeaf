"""Ratios over turns, the file they are kept in, and the page that shows them."""

import json

import bench
import entries
import pytest
from interleaved import Ratio, alternate, median_of, ratio_of_medians

FOUND = Ratio(2.0, 1.5, 2.5, 3)


def test_sides_take_turns_and_none_is_always_the_first():
    order = []

    def side(name):
        def work(turn):
            order.append((turn, name))
            return 10 * turn + len(name)

        return work

    values = alternate([side("a"), side("bb")], 3)
    assert order == [(0, "a"), (0, "bb"), (1, "bb"), (1, "a"), (2, "a"), (2, "bb")]
    assert values == [[1, 11, 21], [2, 12, 22]]


def test_no_turn_is_begun_when_patience_is_over_but_one_is_always_made():
    times = iter([0.0, 4.0, 6.0])
    assert alternate([lambda turn: 1.0], 9, patience=5.0, clock=lambda: next(times)) == [[1.0, 1.0]]
    assert alternate([lambda turn: 1.0], 9, patience=0.0) == [[1.0]]


def test_the_ratio_is_of_medians_and_its_spread_keeps_a_turns_figures_together():
    found = ratio_of_medians([1.0, 2.0, 30.0], [4.0, 8.0, 120.0])
    assert (found.ratio, found.low, found.high, found.n) == (4.0, 4.0, 4.0, 3)
    uneven = ratio_of_medians([1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 3.0, 4.0, 5.0, 6.0])
    assert uneven.ratio == 4.0
    assert uneven.low < 4.0 < uneven.high
    assert median_of([0.5, 0.7, 0.6]).ratio == 0.6
    single = ratio_of_medians([2.0], [1.0])
    assert (single.ratio, single.low, single.high, single.n) == (0.5, 0.5, 0.5, 1)


def test_an_entry_replaces_its_own_and_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["somewhere/start_up.py", "--repeats", "2"])
    tmp_path /= "not/there/yet"
    entries.record("start_up", FOUND, {"x": [1]}, tmp_path)
    entries.record("env_overhead", FOUND, {}, tmp_path)
    entries.record("start_up", Ratio(3.0, 3.0, 3.0, 1), {}, tmp_path)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert list(kept) == ["env_overhead", "start_up"]
    assert kept["env_overhead"]["ratio"] == 2.0
    entry = kept["start_up"]
    assert {"ratio", "low", "high", "n", "command", "machine"} <= set(entry)
    assert (entry["ratio"], entry["n"]) == (3.0, 1)
    assert entry["command"] == "python benchmarks/start_up.py --repeats 2"


@pytest.mark.parametrize(("name", "found"), [("nothing", FOUND), ("start_up", Ratio(float("nan"), 1.0, 2.0, 3))])
def test_unknown_names_and_figures_that_are_none_are_refused(name, found, tmp_path):
    with pytest.raises((KeyError, ValueError), match=name):
        entries.record(name, found, {}, tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_the_page_is_what_the_results_say_and_names_every_benchmark():
    written = bench.PAGE.read_text(encoding="utf-8")
    assert written.partition(bench.MARKER)[2] == "\n" + bench.render()
    for name, about in entries.ABOUT.items():
        assert f"`{name}`" in written
        assert f"`{about.script}`" in written
        assert (entries.HERE / about.script).is_file()


def test_what_is_not_measured_is_said_to_be_so(tmp_path):
    entries.record("start_up", FOUND, {"seconds": {"dlr list": [1.0, 4.0, 2.0]}}, tmp_path)
    page = bench.render(tmp_path)
    assert page.count("not measured yet") == len(entries.ABOUT) - 1
    assert "| `start_up` | 2.00 | 1.50 … 2.50 | 3 |" in page
    assert "| `dlr list` | 2.00 (1.00 … 4.00) |" in page
    assert "](../benchmarks/start_up.png)" in page


def test_each_script_is_started_once_and_the_long_ones_train_what_is_missing():
    started = [line[1:] for line in bench.lines(list(entries.ABOUT))]
    assert len(started) == len({about.script for about in entries.ABOUT.values()})
    assert [line[1:] for line in started if line[1:]] == [["run"], ["run"]]
    assert started[0][0].endswith("benchmarks/decode.py")
    assert bench.lines(["start_up"])[0][1].endswith("start_up.py")
