"""What an assistant keeps for its gradients may be computed again instead: the same gradients, and counted."""

from typing import Any

import pytest
import torch

from dlr_core.config import resolve
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer


@pytest.fixture
def collector(host: PluginHost, tiny_model: Any) -> Any:
    values = {"decoder": {"model": str(tiny_model), "dtype": "float32", "device": "cpu"}, "loggers": []}
    values |= {"task": {"pool": 40}, "batch": {"questions": 2, "samples": 2}}
    return build_trainer(resolve(values, host), host).collector


def learned(collector: Any, *, keeping: bool) -> tuple[torch.Tensor, list[torch.Tensor], int, int]:
    """Chains, gradients of their sum of squares, bytes kept until these are asked for, and FLOPs counted."""
    states_BSH, mask_BS = torch.randn(3, 9, 64, generator=torch.Generator().manual_seed(0)), torch.ones(3, 9).long()
    noise_NTD = torch.randn(3, collector.space.num_latents, collector.space.latent_dim, generator=torch.Generator())
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    collector.ledger.begin()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        actions_NTD = collector.sample(states_BSH, mask_BS, noise_NTD, keeping=keeping).actions_NTD
    held, weights = sum(kept.values()), [w for w in collector.assistant.parameters() if w.requires_grad]
    grads = torch.autograd.grad(actions_NTD.square().sum(), weights, allow_unused=True, materialize_grads=True)
    return actions_NTD.detach(), list(grads), held, collector.ledger.close()["assistant_flops"]


def test_gradients_are_the_same_of_what_is_computed_again_and_little_is_kept(collector: Any) -> None:
    one, grads, held, flops = learned(collector, keeping=True)
    other, again, less, more = learned(collector, keeping=False)
    assert torch.equal(one, other)
    assert any(bool(grad.any()) for grad in grads)
    assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))
    assert less < held / 10
    assert more == flops // 3 * 4


def test_where_nothing_flows_back_nothing_more_is_counted(collector: Any) -> None:
    given = torch.randn(3, 9, 64), torch.ones(3, 9).long()
    noise_NTD = torch.zeros(3, collector.space.num_latents, collector.space.latent_dim)
    counted = []
    for keeping in (True, False):
        collector.ledger.begin()
        with torch.no_grad():
            collector.sample(*given, noise_NTD, keeping=keeping)
        counted.append(collector.ledger.close()["assistant_flops"])
    assert counted[0] == counted[1] > 0
