"""Limits of a run and the rates between them."""

import pytest

from dlr_core.config import resolve
from dlr_core.pipeline import build_trainer
from dlr_core.schedule import CLOCKS, Schedule
from dlr_core.settings import OptimSettings


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


def test_a_limit_in_minutes_is_counted_by_the_clock_that_the_settings_name(monkeypatch, host, tiny_model):
    readings = iter(range(0, 10_000, 40))
    monkeypatch.setitem(CLOCKS, "cpu", lambda: float(next(readings)))
    tiny = {"env": "dlr/Toy-v0", "decoder": {"model": str(tiny_model)}, "batch": {"questions": 1, "samples": 2},
            "space": {"name": "kv", "num_latents": 2, "latent_dim": 4}, "replay": {"chains": 0}}  # fmt: skip
    trainer = build_trainer(resolve({**tiny, "steps": None, "minutes": 2.0, "clock": "cpu"}, host), host)
    steps = list(trainer.run())
    assert trainer.seconds == 40.0 * len(steps) == 120.0, "three steps of forty seconds each by that clock"
    assert all(step["seconds"] < 40.0 for step in steps), "what is logged stays wall time"
