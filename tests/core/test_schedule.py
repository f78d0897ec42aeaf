"""Limits of a run and the rates between them."""

import pytest

from dlr_core.config import OptimSettings
from dlr_core.schedule import Schedule


def test_rates_rise_stay_and_fall_to_a_tenth():
    schedule = Schedule(OptimSettings(warmup=4, decay=0.5), 100, None)
    rates = [schedule.rate(step, schedule.progress(step, 0.0)) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.1)
    flat = Schedule(OptimSettings(warmup=0, decay=0.0), 10, None)
    assert {flat.rate(step, step / 10) for step in range(10)} == {1.0}


def test_progress_is_of_the_nearer_limit():
    both, clock = Schedule(OptimSettings(), 10, 1.0), Schedule(OptimSettings(), None, 1.0)
    assert [both.progress(step, seconds) for step, seconds in ((5, 29.0), (5, 45.0), (0, 0.0))] == [0.5, 0.75, 0.0]
    assert clock.progress(5, 45.0) == 0.75
    assert Schedule(OptimSettings(), 10, None).progress(5, 1e9) == 0.5
    assert [both.over(step, seconds) for step, seconds in ((9, 59.0), (10, 0.0), (0, 60.0))] == [False, True, True]
    assert [clock.over(step, seconds) for step, seconds in ((900, 59.0), (0, 60.0))] == [False, True]
