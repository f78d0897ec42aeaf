"""What a rank is given, what the ranks' results make together, and what they are refused."""

import pytest
import torch
from torch import nn

from dlr_core.config import resolve
from dlr_core.errors import ConfigError, PluginError, RankError
from dlr_core.everyone import joined_account, joined_row, joined_state, own_state
from dlr_core.lockstep import Report, drawn, exchange, process_drawn
from dlr_core.rank_rules import for_ranks, share_parts
from dlr_core.ranks import Ranks, launched


class Others(Ranks):
    """The first of two ranks; what the other one says is given."""

    def __init__(self, *said):
        super().__init__(0, 2)
        self.said = list(said)

    def gather(self, value):
        return [value, self.said.pop(0)]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_shares_follow_one_another_and_leave_nothing_out(size):
    for count in range(10):
        shares = [list(range(count))[Ranks(rank, size).share(count)] for rank in range(size)]
        assert [number for share in shares for number in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= (0 if count % size == 0 else 1)


def test_alone_everything_is_what_it_was():
    ranks, layer = Ranks(), nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    gradient = layer.weight.grad
    ranks.average(list(layer.parameters()))
    assert layer.weight.grad is gradient
    values = torch.ones(3, requires_grad=True)
    assert ranks.rows(values) is values
    assert (ranks.gather(4), ranks.join([1, 2]), ranks.tell("x"), ranks.any(False)) == ([4], [1, 2], "x", False)
    assert ranks.reduced_bytes == ranks.gathered_bytes == 0
    with pytest.raises(ConfigError), ranks.agreeing():
        raise ConfigError("wrong")


@pytest.mark.parametrize(
    ("environment", "size"),
    [({}, 1), ({"WORLD_SIZE": "4"}, 1), ({"WORLD_SIZE": "4", "RANK": "1"}, 4), ({"WORLD_SIZE": "x", "RANK": "1"}, 1)],
)
def test_a_launch_is_known_by_its_variables(monkeypatch, environment, size):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == size


def test_an_error_on_another_rank_is_the_first_ones_too():
    with pytest.raises(RankError, match="rank 1: no such model") as raised, Others("no such model").agreeing():
        pass
    assert not raised.value.told
    with Others(None).agreeing():
        pass


def test_metrics_agree_or_are_averaged_and_costs_are_added():
    rows = [{"loss": 1.0, "decodes": 8, "phase": "rl", "reward": None, "odd": 1.0}] * 2
    assert joined_row(rows) == rows[0]
    assert joined_row([rows[0], {**rows[0], "loss": 2.0, "odd": None}]) == {**rows[0], "loss": 1.5, "odd": None}
    accounts = [{"decoded": 3, "phases": {"update": 1.0}}, {"decoded": 4, "phases": {"update": 9.0}}]
    assert joined_account(accounts) == {"decoded": 7, "phases": {"update": 1.0}}


def test_an_environments_state_is_the_same_whoever_held_it():
    whole = {"group_size": 2, "index": [5, 6, 7, 8], "generators": [{"at": n} for n in range(8)]}
    for size in (1, 2, 4):
        parts = [own_state(Ranks(rank, size), whole) for rank in range(size)]
        assert [len(part["index"]) for part in parts] == [4 // size] * size
        assert joined_state(parts) == whole


def report(**changes):
    same = {"metrics": {}, "account": {}, "seconds": 1.0, "env": {}, "weight": 2.0, "draws": "a", "strayed": False}
    return Report(**{**same, **changes})


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (report(strayed=True), "rank 1: a part of this run draws from the process's own generators"),
        (report(draws="b"), "rank 1 has drawn other random numbers than rank 0"),
        (report(weight=2.001), "the weights of rank 1 have come apart"),
    ],
)
def test_ranks_that_are_no_longer_one_run_end_it(other, expected):
    with pytest.raises(PluginError, match=expected):
        exchange(Others(other), report())
    assert exchange(Others(report(weight=2.00001)), report())[1].weight == 2.00001


def test_every_draw_is_noticed():
    generator = torch.Generator().manual_seed(0)
    before, own = drawn(generator), process_drawn()
    torch.randn(1, generator=generator)
    assert drawn(generator) != before
    assert process_drawn() == own
    torch.randn(1)
    assert process_drawn() != own


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"batch": {"questions": 6}}, "batch.questions: expected a multiple of the 4 ranks, got 6"),
        ({"replay": {"chains": 3}}, "replay.chains: expected 0, or at least one for each of the 4 ranks"),
        ({"replay": {"blur": 0.1}}, "replay.blur: expected 0 on several ranks"),
        ({"decoder": {"device_map": "auto"}}, "decoder.device_map spreads one model over all devices"),
        ({"contrastive": "laser"}, "contrastive 'laser' asks the frozen model about all questions"),
    ],
)
def test_what_would_not_be_the_run_of_one_rank_is_refused(host, settings, expected):
    config = resolve(settings, host)
    assert for_ranks(config, host, 1) is config
    with pytest.raises(ConfigError, match=expected):
        for_ranks(config, host, 4)


def test_parts_that_would_learn_apart_are_refused():
    ranks = Ranks(0, 2)
    share_parts(ranks, estimator=object(), reward=object(), scorer=object())
    with pytest.raises(ConfigError) as raised:
        share_parts(ranks, estimator=nn.Linear(1, 1), reward=nn.Linear(1, 1), scorer=nn.Linear(1, 1))
    assert len(raised.value.problems) == 3
    share_parts(Ranks(), estimator=nn.Linear(1, 1), reward=nn.Linear(1, 1), scorer=nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("asked", "dtype", "becomes"),
    [
        ("no", "auto", "auto"),
        ("bf16", "auto", "bfloat16"),
        ("bf16", "bfloat16", "bfloat16"),
        ("fp16", "auto", "float16"),
    ],
)
def test_accelerates_precision_is_the_frozen_models(host, monkeypatch, asked, dtype, becomes):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    config = resolve({"decoder": {"dtype": dtype}}, host)
    assert for_ranks(config, host, 2).decoder.dtype == becomes
    assert for_ranks(config, host, 1) is config


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ACCELERATE_MIXED_PRECISION", "fp8", "mixed_precision=fp8 with decoder.dtype=auto: expected another"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "x", "gradient_accumulation_steps: expected a whole number above 0"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP: every rank holds the whole frozen model"),
    ],
)
def test_what_accelerate_asks_for_in_vain_is_said(host, monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=expected):
        for_ranks(resolve({}, host), host, 2)


def test_accelerates_gradient_accumulation_is_the_run_s(host, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert for_ranks(resolve({}, host), host, 2).batch.accumulate == 4
    assert for_ranks(resolve({"batch": {"accumulate": 4}}, host), host, 2).batch.accumulate == 4
    assert for_ranks(resolve({}, host), host, 1).batch.accumulate == 1
    for batch, expected in (
        ({"accumulate": 2}, "expected 1 or 2, as batch.accumulate"),
        ({"epochs": 2}, "with batch.epochs=2"),
    ):
        with pytest.raises(ConfigError, match=expected):
            for_ranks(resolve({"batch": batch}, host), host, 2)
