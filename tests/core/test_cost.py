"""The account of a run against PyTorch's own count of the same work."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dlr_core.cost import FlopCount, Ledger, TokenFlops, Usage, total_cost

QUESTIONS = ["How are you?", "And you, over there?"]


def counted(work):
    with FlopCounterMode(display=False) as mode:
        result = work()
    return result, mode.get_total_flops()


def test_small_parts_are_counted_as_pytorch_counts_them() -> None:
    layer = torch.nn.Linear(6, 5)
    _, expected = counted(lambda: layer(torch.ones(7, 6)))
    with FlopCount() as count:
        layer(torch.ones(7, 6))
    assert count.total == expected == 2 * 7 * 6 * 5


def test_backward_counts_twice_and_nothing_twice_over() -> None:
    layer = torch.nn.Linear(6, 5)
    ledger = Ledger(Usage(), TokenFlops(1, 1))
    with ledger.flops("assistant", backward=True), ledger.flops("scorer"):
        layer(torch.ones(7, 6))
    account = ledger.close()
    assert account["assistant_flops"] == 3 * 2 * 7 * 6 * 5
    assert account["scorer_flops"] == 0


def test_what_is_computed_again_for_its_gradients_counts_once_more() -> None:
    layer = torch.nn.Linear(6, 5)
    for backward, times in ((True, 4), (False, 1)):
        ledger = Ledger(Usage(), TokenFlops(1, 1))
        with ledger.flops("assistant", backward=backward, again=True):
            layer(torch.ones(7, 6))
        assert ledger.close()["assistant_flops"] == times * 2 * 7 * 6 * 5


def test_only_what_follows_begin_is_on_the_account() -> None:
    usage = Usage(prefilled=5)
    ledger = Ledger(usage, TokenFlops(10, 100))
    usage.prefilled += 7
    with ledger.phase("early"):
        pass
    ledger.begin()
    usage.decoded, usage.logits = usage.decoded + 2, usage.logits + 1
    account = ledger.close()
    assert (account["prefilled"], account["decoded"]) == (0, 2)
    assert account["main_flops"] == 2 * 10 + 100
    assert account["phases"] == {}


@pytest.mark.parametrize("gradients", [False, True])
def test_the_main_models_flops_are_those_pytorch_counts(tiny_decoder, gradients) -> None:
    """Weights alone: attention's own products are left out, which is all that may be missing."""
    decoder = tiny_decoder
    decoder._beginnings.clear()  # a beginning that is kept is counted all the same

    def spent(work):
        before = decoder.usage.copy()
        result, expected = counted(work)
        return result, decoder.usage.since(before).flops(decoder.flops_per_token), expected

    cache, ours, expected = spent(lambda: decoder.prefill(QUESTIONS, [], [], 0))
    assert 0.7 * expected < ours <= expected
    _, ours, expected = spent(lambda: decoder.decode(cache, 6))
    assert 0.7 * expected < ours <= expected
    ids, mask = decoder.encode_targets(["one", "two"])
    pending = cache.pending_NPH.clone().requires_grad_(gradients)
    ready = type(cache)(cache.keys, cache.values, cache.mask_NS, cache.states_NSH, pending, 0)

    def score():
        loss = decoder.log_prob(ready, ids, mask).sum()
        if gradients:
            loss.backward()

    _, ours, expected = spent(score)
    assert 0.7 * expected < ours <= expected


def test_totals_are_sums_and_unknown_values_count_nothing() -> None:
    steps = [{"main_flops": 3, "assistant_flops": 1, "decodes": 4}, {"main_flops": 5, "reward": None, "seconds": 2.0}]
    total = total_cost(steps, [{"step": 1, "rollout": 0.5}, {"step": 2, "rollout": 0.25, "search": 1.0}])
    assert (total["flops"], total["decodes"], total["seconds"]) == (9, 4, 2.0)
    assert total["phases"] == {"rollout": 0.75, "search": 1.0}
