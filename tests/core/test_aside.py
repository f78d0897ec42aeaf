"""Calls made beside the caller's own work."""

import gc
import threading

import pytest

from dlr_core.aside import Aside


def test_the_caller_goes_on_while_a_call_is_made() -> None:
    gate = threading.Event()
    pending = Aside().start(gate.wait, 30.0)
    assert not pending.wait(0.01)
    gate.set()  # nobody would, had the caller waited
    assert pending.result() is True
    assert pending.result() is True


def test_calls_are_made_one_at_a_time_in_the_order_in_which_they_are_asked_for() -> None:
    aside, made, gate = Aside(), list[int](), threading.Event()

    def call(number: int) -> int:
        gate.wait(30.0)
        made.append(number)
        return number * number

    pendings = [aside.start(call, number) for number in range(5)]
    gate.set()
    assert [pending.result() for pending in reversed(pendings)] == [16, 9, 4, 1, 0]
    assert made == list(range(5))


def test_what_a_call_raises_is_its_owner_s_and_the_next_one_is_made() -> None:
    aside = Aside()

    def fail() -> None:
        raise KeyError("lost")

    failed, fine = aside.start(fail), aside.start(len, "abc")
    assert fine.result() == 3
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            failed.result()


def test_the_thread_ends_with_its_owner() -> None:
    aside = Aside()
    (thread,) = aside.start(lambda: [threading.current_thread()]).result()
    assert thread.daemon
    del aside
    gc.collect()
    thread.join(20.0)
    assert not thread.is_alive()
