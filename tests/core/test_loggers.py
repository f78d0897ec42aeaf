"""What a run owes its loggers, and what none of them can do to it."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from dlr_core import API_VERSION, ConfigError, PluginError, PluginHost, hookimpl
from dlr_core.loggers import Loggers
from dlr_core.protocols import RunInfo, RunSummary
from dlr_core.settings import Component

INFO = RunInfo(Path("nowhere"), {"seed": 0}, "abc", {"assistant": 1, "chart": 0}, [{"step": 1}])
SUMMARY = RunSummary("finished", 3, 1.0)


class Told:
    """Remembers what it is told; raises or asks for a stop at chosen calls."""

    def __init__(self, fails="", stops_at=None):
        self.fails, self.stops_at, self.calls = fails, stops_at, []

    def _told(self, name, value):
        self.calls.append((name, value))
        if name == self.fails:
            raise RuntimeError(f"{name} went wrong\nin two lines")

    def begin(self, run):
        self._told("begin", run)

    def step(self, metrics):
        self._told("step", metrics["step"])
        metrics["step"], metrics["phases"]["update"] = -1, -1
        return "enough" if self.stops_at == self.calls[-1][1] else None

    def end(self, summary):
        self._told("end", summary)


def row(step):
    return {"step": step, "phases": {"update": 0.5}}


def whole_run(loggers):
    loggers.begin(INFO)
    reasons = [loggers.step(row(step)) for step in (2, 3)]
    loggers.end(SUMMARY)
    return reasons


@pytest.mark.parametrize("fails", ["begin", "step", "end"])
def test_a_logger_that_raises_is_warned_of_once_and_left_out_and_the_others_are_told_everything(fails):
    bad, good, warnings = Told(fails), Told(), []
    loggers = Loggers([("bad", bad), ("good", good)], warnings.append)
    assert whole_run(loggers) == [None, None]
    assert [name for name, _ in good.calls] == ["begin", "step", "step", "end"]
    assert [name for name, _ in bad.calls] == ["begin", "step", "step", "end"][: 1 + ["begin", "step", "", "end"].index(fails)]  # fmt: skip  # noqa: E501
    (warning,) = warnings
    assert "'bad'" in warning
    assert f"RuntimeError: {fails} went wrong" in warning
    assert "\n" not in warning
    assert list(loggers.failed) == ["bad"]


def test_an_interrupt_is_not_swallowed():
    class Interrupted(Told):
        def step(self, metrics):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Loggers([("x", Interrupted())], pytest.fail).step(row(1))


def test_any_logger_may_ask_for_a_stop_and_is_named():
    loggers = Loggers([("first", Told()), ("second", Told(stops_at=3))], pytest.fail)
    assert whole_run(loggers) == [None, "second: enough"]


def test_no_logger_changes_what_another_sees_or_what_the_run_logs():
    first, second = Told(), Told()
    loggers = Loggers([("first", first), ("second", second)], pytest.fail)
    metrics = row(2)
    loggers.step(metrics)
    assert metrics == row(2)
    assert second.calls == [("step", 2)]


def test_what_loggers_print_leaves_stdout_to_the_table(capsys):
    class Talks(Told):
        def step(self, metrics):
            print("hello")

    Loggers([("talks", Talks())], pytest.fail).step(row(1))
    assert capsys.readouterr() == ("", "hello\n")


def test_the_end_is_told_once():
    told = Told()
    loggers = Loggers([("told", told)], pytest.fail)
    loggers.end(SUMMARY)
    loggers.end(SUMMARY)
    assert told.calls == [("end", SUMMARY)]


class Picky:
    """Needs a library."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        library: str = "none"

    def __init__(self, options):
        if options.library == "missing":
            raise ModuleNotFoundError("No module named 'missing'")


class Offer:
    DLR_API_VERSION = API_VERSION

    @hookimpl
    def dlr_register_logger(self, register):
        register("picky", Picky)


def test_a_logger_that_cannot_be_made_refuses_the_run():
    host = PluginHost()
    host.add(Offer(), "offer")
    Loggers.build([Component(name="picky")], host, pytest.fail)
    with pytest.raises(PluginError, match="logger 'picky' cannot be made: ModuleNotFoundError: No module named"):
        Loggers.build([Component(name="picky", library="missing")], host, pytest.fail)
    with pytest.raises(ConfigError, match="did you mean 'library'"):
        Loggers.build([Component(name="picky", libary="x")], host, pytest.fail)
