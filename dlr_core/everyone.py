"""What one rank has made, joined with what the others have: for whatever looks at all questions of a step at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from dlr_core.batch import Decodes, StepBatch
from dlr_core.density import Policy, TanhGaussian
from dlr_core.errors import PluginError
from dlr_core.protocols import ChainBatch
from dlr_core.ranks import Ranks
from dlr_core.records import Completions, FindItem, Item


@dataclass(frozen=True)
class JoinedPolicy:
    """π of all ranks' chains, each rank asking its own. Satisfies :class:`dlr_core.density.Policy`."""

    ranks: Ranks
    own: Policy
    shape: torch.Size
    """(n, T, D) of this rank's chains."""

    @property
    def log_std(self) -> Tensor:
        """log σ (N, T, D)."""
        return self.ranks.rows(self.own.log_std.expand(self.shape))

    def log_prob(self, pre: Tensor) -> Tensor:
        """log π(tanh(u_t)) of one chain for each of the N rows."""
        return self.ranks.rows(self.own.log_prob(pre[self.ranks.share(len(pre))]))

    def entropy(self) -> Tensor:
        """Per latent (N, T)."""
        return self.ranks.rows(self.own.entropy())

    def kl(self, other: TanhGaussian) -> Tensor:
        """KL(self ‖ other) per latent (N, T)."""
        return self.ranks.rows(self.own.kl(other))


def joined_batch(ranks: Ranks, batch: StepBatch) -> StepBatch:
    """The step's batch over all ranks' questions; gradients flow into this rank's rows (:meth:`Ranks.rows`).

    It comes without the frozen model: likelihoods of other ranks' chains are not to be had here.
    """
    if ranks.size == 1:
        return batch
    rows, chains = ranks.rows, batch.chains
    width = max(ranks.gather(batch.mask_BS.shape[1])) - batch.mask_BS.shape[1]
    policy = JoinedPolicy(ranks, chains.policy, chains.pre_NTD.shape)
    each = batch.decodes
    return StepBatch(
        chains=ChainBatch(rows(chains.noise_NTD), policy, rows(chains.pre_NTD)),
        states_BSH=rows(torch.nn.functional.pad(batch.states_BSH, (0, 0, width, 0))),
        mask_BS=rows(torch.nn.functional.pad(batch.mask_BS, (width, 0))),
        questions=ranks.join(batch.questions),
        chosen_BK=rows(batch.chosen_BK),
        inclusion_BG=rows(batch.inclusion_BG),
        predictions_BG=rows(batch.predictions_BG),
        rewards_BK=rows(batch.rewards_BK),
        correct_BK=rows(batch.correct_BK),
        repeat_BK=rows(batch.repeat_BK),
        policy_log_prob_BGT=lambda: rows(batch.policy_log_prob_BGT()),
        old_log_prob_BGT=rows(batch.old_log_prob_BGT),
        weighted_completion_log_prob=_not_here,
        weighted_gold_log_prob=_not_here,
        decodes=each and Decodes(rows(each.rewards_BKM), rows(each.correct_BKM), rows(each.repeat_BKM)),
    )


def _not_here(latents_NTD: Tensor, weights: Tensor) -> NoReturn:
    raise PluginError(
        "a contrastive objective that asks the frozen model for likelihoods needs all questions on one rank"
    )


def joined_completions(ranks: Ranks, done: Completions) -> Completions:
    """Every rank's completions: ids, texts and ends."""
    if ranks.size == 1:
        return done
    return Completions.of(ranks.join(done.written()), done.ids_NL.device)


def nothing_completed(device: torch.device) -> Completions:
    """No completion at all: a rank's share of less than there are ranks."""
    empty = torch.zeros(0, 0, device=device)
    return Completions(empty.long(), empty, [], torch.zeros(0, dtype=torch.bool, device=device))


def joined_items(ranks: Ranks, own: Sequence[Item], item: FindItem) -> list[Item]:
    """Every rank's questions, in the order of the ranks."""
    if ranks.size == 1:
        return list(own)
    return [item(index) for index in ranks.join([each.index for each in own])]


def joined_state(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of one environment, from those of the ranks: lists follow one another, all else is the same."""
    return {
        key: [entry for state in states for entry in state[key]] if isinstance(value, list) else value
        for key, value in states[0].items()
    }


def own_state(ranks: Ranks, state: Mapping[str, Any]) -> dict[str, Any]:
    """This rank's share of :func:`joined_state`."""
    return {key: value[ranks.share(len(value))] if isinstance(value, list) else value for key, value in state.items()}


def joined_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A step's metrics from those of the ranks: what they agree on, or else the mean; None where one has no figure."""
    joined: dict[str, Any] = {}
    for key, value in rows[0].items():
        values = [row.get(key) for row in rows]
        if any(other != value for other in values):
            known = [other for other in values if isinstance(other, int | float)]
            value = sum(known) / len(known) if len(known) == len(values) else None
        joined[key] = value
    return joined


def joined_account(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A step's cost: the sum of what the ranks have computed, the first one's seconds."""
    first = accounts[0]
    return {
        key: value if key == "phases" else sum(account[key] for account in accounts) for key, value in first.items()
    }
