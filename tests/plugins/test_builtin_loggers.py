"""The built-in loggers: what TensorBoard is given, and when `early-stop` stops."""

import time

import pytest
from dlr_plugins.loggers.early_stop import EarlyStop
from dlr_plugins.loggers.tensorboard import TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dlr_core import ConfigError
from dlr_core.protocols import RunInfo, RunSummary


def run(folder, earlier=()):
    return RunInfo(folder, {}, "abc", {"assistant": 1, "chart": 0}, earlier)


def rows(*values, phase="rl", first=1, key="reward"):
    return [{"step": first + n, "phase": phase, key: value} for n, value in enumerate(values)]


def stops_at(options, metrics, earlier=(), folder=None):
    """The step after which the run stops, and why; None if it does not."""
    part = EarlyStop(EarlyStop.Options(**options))
    part.begin(run(folder, earlier))
    for row in metrics:
        if reason := part.step(row):
            return row["step"], reason
    return None


def test_it_stops_when_nothing_has_been_better_for_as_many_steps_as_its_patience():
    step, reason = stops_at({"window": 1, "patience": 3}, rows(0.1, 0.4, 0.2, 0.4, 0.3, 0.9))
    assert step == 5  # the best is step 2; an equal one is no improvement
    assert reason == "reward has not improved for 3 steps (best mean 0.4 at step 2)"


def test_what_keeps_improving_is_never_stopped():
    assert stops_at({"window": 1, "patience": 1}, rows(*range(50))) is None
    assert stops_at({"window": 1, "patience": 1, "mode": "min"}, rows(*range(50, 0, -1))) is None


def test_less_is_better_in_mode_min():
    assert stops_at({"window": 1, "patience": 2, "mode": "min", "metric": "loss"}, rows(3, 2, 4, 5, key="loss"))[0] == 4


def test_one_lucky_step_does_not_end_a_run_whose_mean_still_rises():
    values = [0.0, 0.9, *(0.05 * n for n in range(12))]
    assert stops_at({"window": 1, "patience": 4}, rows(*values))[0] == 6
    assert stops_at({"window": 4, "patience": 8}, rows(*values)) is None


def test_the_mean_is_judged_from_the_first_full_window_on():
    # means of two: 0.5 at step 2, then 0.4, 0.3: worse for two steps at step 4
    assert stops_at({"window": 2, "patience": 2}, rows(1.0, 0.0, 0.8, -0.2))[0] == 4


def test_a_warm_start_does_not_count():
    warm = rows(*[None] * 20, phase="warmstart")
    assert stops_at({"window": 1, "patience": 3}, [*warm, *rows(0.5, 0.6, first=21)]) is None


def test_steps_without_the_metric_do_not_move_its_mean():
    sparse = [*rows(0.5), *rows(None, first=2), *rows(0.4, first=3)]
    assert stops_at({"window": 2, "patience": 1}, sparse) is None
    assert stops_at({"window": 2, "patience": 1}, [*sparse, *rows(0.1, first=4)])[0] == 4


def test_a_metric_that_never_comes_is_named_after_the_patience():
    with pytest.raises(ConfigError, match="no metric named 'rewrad'; did you mean 'reward'"):
        stops_at({"metric": "rewrad", "patience": 3}, rows(0.1, 0.2, 0.3))
    assert stops_at({"metric": "rewrad", "patience": 3}, rows(0.1, 0.2)) is None


def test_a_figure_that_is_no_number_is_no_improvement():
    assert stops_at({"window": 1, "patience": 2}, rows(0.5, float("nan"), float("nan")))[0] == 3


@pytest.mark.parametrize("cut", range(8))
def test_a_resumed_run_stops_where_the_uninterrupted_one_does(cut):
    values = rows(0.1, 0.3, 0.6, 0.2, 0.4, 0.5, 0.3, 0.1, 0.2, 0.2)
    options = {"window": 2, "patience": 4}
    whole = stops_at(options, values)
    assert whole[0] == 10
    assert stops_at(options, values[cut:], earlier=values[:cut]) == whole


def scalars(folder):
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: {event.step: event.value for event in board.Scalars(tag)} for tag in board.Tags()["scalars"]}


def step(number, **more):
    return {"step": number, "phase": "rl", "reward": 0.5 * number, "loss": 2.0, "seconds": 0.25,
            "correct": None, "question_cache_hits": 0.75, "phases": {"rollout": 0.125}, **more}  # fmt: skip


def test_tensorboard_has_every_number_of_every_step_by_group(tmp_path):
    board = TensorBoard()
    board.begin(run(tmp_path))
    for number in (1, 2):
        board.step(step(number))
    board.end(RunSummary("finished", 2, 1.0))
    found = scalars(tmp_path)
    assert found == {
        "rollout/reward": {1: 0.5, 2: 1.0},
        "losses/loss": {1: 2.0, 2: 2.0},
        "replay/question_cache_hits": {1: 0.75, 2: 0.75},
        "cost/seconds": {1: 0.25, 2: 0.25},
        "seconds/rollout": {1: 0.125, 2: 0.125},
    }


def test_a_resumed_run_replaces_what_was_logged_after_its_checkpoint(tmp_path, monkeypatch):
    clock = time.time
    for later, (earlier, numbers, reward) in enumerate((([], (1, 2, 3), 0.0), ([step(1)], (2,), 9.0))):
        monkeypatch.setattr(time, "time", lambda later=later: clock() + later)  # files are read in the order of seconds
        board = TensorBoard()
        board.begin(run(tmp_path, earlier))
        for number in numbers:
            board.step(step(number, reward=reward))
        board.end(RunSummary("interrupted", numbers[-1], 1.0))
    assert scalars(tmp_path)["rollout/reward"] == {1: 0.0, 2: 9.0}
