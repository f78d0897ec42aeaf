"""Updates that are left out, a main model that is watched, calls that never return, generators that come back."""

import json
import random
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from dlr_core.errors import PluginError
from dlr_core.frozen import Frozen
from dlr_core.generators import process_state, restore_process, seed_process
from dlr_core.timelimit import Overdue, each_within, within
from dlr_core.updates import Updates


def updates(patience: int = 2) -> tuple[Updates, nn.Linear]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    named = {f"layer.{name}": parameter for name, parameter in layer.named_parameters()}
    return Updates(torch.optim.Adam(named.values(), lr=0.1), named, clip=1.0, patience=patience), layer


def step(made: Updates, *losses: torch.Tensor) -> float:
    made.begin()
    for loss in losses:
        made.backward(loss)
    norm = made.apply()
    made.end()
    return norm


def test_an_update_is_a_clipped_one_to_the_last_bit() -> None:
    made, layer = updates()
    _, twin = updates()
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.1)
    data = torch.arange(12.0).view(4, 3)
    for _ in range(3):
        norm = step(made, layer(data).square().mean())
        twin(data).square().mean().backward()
        expected = nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert norm == float(expected)
    assert all(torch.equal(x, y) for x, y in zip(layer.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_neither_parameters_nor_moments(bad: float) -> None:
    made, layer = updates(patience=3)
    data = torch.ones(1, 3)
    step(made, layer(data).sum())
    before = [p.detach().clone() for p in layer.parameters()]
    moments = [slot["exp_avg"].clone() for slot in made.optimizer.state.values()]
    step(made, layer(data).sum(), layer(data).sum() * bad)
    assert (made.skipped, made.in_row, made.stuck) == (1, 1, False)
    assert made.reason in ("the loss is nan", "the loss is inf", "the loss is -inf")
    assert all(torch.equal(x, y) for x, y in zip(before, layer.parameters(), strict=True))
    assert all(torch.equal(x, s["exp_avg"]) for x, s in zip(moments, made.optimizer.state.values(), strict=True))
    step(made, layer(data).sum())
    assert (made.skipped, made.in_row) == (0, 0)
    assert not torch.equal(before[0], layer.weight)


def test_a_gradient_that_is_not_finite_is_left_out_and_its_parameter_named() -> None:
    made, layer = updates()
    layer.bias.register_hook(lambda gradient: gradient * float("nan"))
    for expected in (False, True):
        step(made, layer(torch.ones(1, 3)).sum())
        assert made.stuck is expected
    assert made.reason == "the gradient's norm is nan, not finite in layer.bias"
    assert bool(torch.isfinite(layer.weight).all())


# ---- the main model ------------------------------------------------------------------------------------------------


class Decoder:
    def __init__(self) -> None:
        self.model = nn.Linear(2, 2).requires_grad_(False)


def test_who_writes_to_the_main_model_is_named_with_the_parameter() -> None:
    decoder = Decoder()
    frozen = Frozen(decoder)
    with frozen.watch("scorer Honest"):
        decoder.model(torch.ones(1, 2))
    with pytest.raises(PluginError, match=r"^space Thief wrote to bias of the main model, which is frozen$"):  # noqa: SIM117
        with frozen.watch("space Thief"):
            decoder.model.bias.mul_(1.0)
    with pytest.raises(PluginError, match=r"^a part of this run wrote to bias"), frozen.watch("scorer Honest"):
        pass


def test_who_would_train_the_main_model_is_named() -> None:
    decoder = Decoder()
    frozen = Frozen(decoder)
    frozen.refuse_parameters([nn.Parameter(torch.ones(1))], "the space")
    with pytest.raises(PluginError, match="the space offers weight of the main model for training"):
        frozen.refuse_parameters([decoder.model.weight], "the space")
    with pytest.raises(PluginError, match="estimator Eager made weight trainable"), frozen.watch("estimator Eager"):
        decoder.model.weight.requires_grad_(True)


# ---- time ----------------------------------------------------------------------------------------------------------


def test_a_call_in_time_gives_its_result_or_its_error_and_reuses_its_thread() -> None:
    before = threading.active_count()
    assert [within(60.0, pow, 2, n) for n in range(5)] == [1, 2, 4, 8, 16]
    assert len({within(60.0, threading.current_thread) for _ in range(5)}) == 1
    assert threading.active_count() <= before + 1
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 / 0)
    assert within(None, threading.current_thread) is threading.current_thread()


def test_a_call_that_never_returns_is_given_up_and_its_late_answer_is_nobodys() -> None:
    gate = threading.Event()

    def late() -> str:
        gate.wait()
        return "late"

    with pytest.raises(Overdue):
        within(0.05, late)
    assert within(60.0, lambda: "now") == "now"
    gate.set()
    time.sleep(0.05)
    assert within(60.0, lambda: "next") == "next"


def test_the_limit_works_on_any_thread() -> None:
    found: list[object] = []

    def ask() -> None:
        try:
            within(0.05, threading.Event().wait, 30.0)
        except Overdue as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(20.0)
    assert len(found) == 1


def test_many_calls_take_as_long_as_they_like_together() -> None:
    assert each_within(1.0, lambda n: time.sleep(0.1) or n, [(n,) for n in range(12)]) == list(range(12))


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_the_first_call_to_fail_is_the_last(seconds: float | None) -> None:
    made: list[int] = []

    def call(n: int) -> float:
        made.append(n)
        return 1 / (2 - n)

    with pytest.raises(ZeroDivisionError):
        each_within(seconds, call, [(n,) for n in range(5)])
    assert made == [0, 1, 2]


def test_which_call_is_overdue_is_said_and_none_is_made_after_it() -> None:
    gate, ended, made = threading.Event(), threading.Event(), []

    def call(n: int) -> None:
        made.append(n)
        if n == 2:
            gate.wait()
            ended.set()

    with pytest.raises(Overdue) as late:
        each_within(0.2, call, [(n,) for n in range(5)])
    assert late.value.number == 2
    gate.set()
    assert ended.wait(20.0)
    each_within(60.0, call, [(9,)])
    time.sleep(0.05)
    assert made == [0, 1, 2, 9]


# ---- generators ----------------------------------------------------------------------------------------------------


def test_the_process_s_generators_go_on_where_they_were() -> None:
    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))]

    seed_process(5)
    first = draw()
    plain, tensors = process_state()
    second = draw()
    restore_process(json.loads(json.dumps(plain)), tensors)
    assert draw() == second != first
    seed_process(5)
    assert draw() == first
