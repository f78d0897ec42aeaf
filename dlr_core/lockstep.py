"""The end of a step on several ranks: what each of them has to tell, and whether they are still one run."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dlr_core.errors import PluginError, RankError
from dlr_core.generators import process_state
from dlr_core.ranks import Ranks

APART = 1e-4
"""Relative difference of the ranks' weights that is no rounding any more."""


@dataclass(frozen=True)
class Report:
    """What a rank tells the others."""

    metrics: Mapping[str, Any]
    account: Mapping[str, Any]
    """What its step has cost."""
    seconds: float
    """Training time by its clock."""
    env: Mapping[str, Any]
    """State of its environment."""
    weight: float
    """Norm of all that is trained."""
    draws: str
    """Digest of the run's generator."""
    strayed: bool
    """Whether the process's own generators were drawn from."""


def exchange(ranks: Ranks, report: Report) -> list[Report]:
    """Every rank's report.

    Raises:
        PluginError: they are no longer one run, on the first rank; a RankError on the others.
    """
    reports = ranks.gather(report)
    reason = _apart(reports)
    if reason is not None:
        raise PluginError(reason) if ranks.first else RankError(reason, told=True)
    return reports


def _apart(reports: list[Report]) -> str | None:
    first = reports[0]
    for rank, other in enumerate(reports):
        if other.strayed:
            return (
                f"rank {rank}: a part of this run draws from the process's own generators (torch, numpy, random), so "
                "that questions would get other draws than on one rank: train it on one"
            )
        if other.draws != first.draws:
            return (
                f"rank {rank} has drawn other random numbers than rank 0: a part of this run draws from the run's "
                "generator for its own questions alone; train it on one rank"
            )
        if not math.isclose(other.weight, first.weight, rel_tol=APART):
            return f"the weights of rank {rank} have come apart from rank 0's: {other.weight}, not {first.weight}"
    return None


def drawn(generator: torch.Generator) -> str:
    """Digest of where a generator is."""
    return hashlib.blake2b(generator.get_state().numpy().tobytes()).hexdigest()


def process_drawn() -> str:
    """The same of the process's own generators."""
    plain, tensors = process_state()
    digest = hashlib.blake2b(json.dumps(plain).encode())
    for state in tensors.values():
        digest.update(state.cpu().numpy().tobytes())
    return digest.hexdigest()
