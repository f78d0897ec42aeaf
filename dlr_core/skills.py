"""A library of skills over one frozen model: a router that picks one from the question alone, and what is forgotten.

Each skill is a trained assistant with its chart; skills share nothing that training moves, so an old one cannot be
overwritten. What can go wrong is the choice between them, and that is measured.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlr_core.aggregate import bootstrap_runs
from dlr_core.protocols import Decoder

Matrix = list[list[float | None]]


@torch.no_grad()
def question_features(decoder: Decoder, questions: Sequence[str], batch: int = 64) -> NDArray[np.float64]:
    """The frozen model's mean and last final-norm state of each question, side by side: (N, 2H)."""
    found = []
    for start in range(0, len(questions), batch):
        cache = decoder.prefill(questions[start : start + batch], [], [], 0)
        states_NSH, mask_NS = cache.states_NSH.float(), cache.mask_NS.float()
        mean_NH = (states_NSH * mask_NS[..., None]).sum(1) / mask_NS.sum(1, keepdim=True)
        found.append(torch.cat([mean_NH, states_NSH[:, -1]], 1).double().cpu().numpy())
    return np.concatenate(found)


class Router:
    """Nearest class mean, each coordinate scaled by the pooled spread within skills (Mensink et al. 2013).

    A new skill adds its own questions' mean and spread; nothing of the old skills' questions is needed again.
    """

    def __init__(self) -> None:
        self.means: list[NDArray[np.float64]] = []
        self.variances: list[NDArray[np.float64]] = []

    def add(self, features_NF: NDArray[np.float64]) -> None:
        """The next skill, from features of its *training* questions."""
        self.means.append(features_NF.mean(0))
        self.variances.append(features_NF.var(0))

    def route(self, features_NF: NDArray[np.float64], skills: int | None = None) -> NDArray[np.int64]:
        """Number of the skill for each question, among the first ``skills`` (all if None)."""
        count = len(self.means) if skills is None else skills
        scale_F = np.mean(self.variances[:count], axis=0) + 1e-6
        means_KF = np.stack(self.means[:count])
        apart_NK = ((features_NF[:, None] - means_KF[None]) ** 2 / scale_F).sum(-1)
        nearest: NDArray[np.int64] = apart_NK.argmin(1)
        return nearest


def measures(correct: Sequence[Sequence[NDArray[np.float64] | None]]) -> dict[str, Any]:
    """The usual figures of continual learning, from correctness per question.

    Args:
        correct: ``correct[i][j]``: after stage i, on the questions of task j; None where not measured (j > i may be).

    Returns:
        ``matrix`` of accuracies; ``average`` accuracy after the last stage; ``backward_transfer``: mean over all but
        the last task of final minus just-learned accuracy (Lopez-Paz & Ranzato 2017), with its interval over
        questions, tasks being strata; ``forgetting``: mean drop from the best earlier stage (Chaudhry et al. 2018).
    """
    last = len(correct) - 1
    matrix: Matrix = [[None if cell is None else float(cell.mean()) for cell in row] for row in correct]

    def cell(i: int, j: int) -> NDArray[np.float64]:
        found = correct[i][j]
        if found is None:
            raise ValueError(f"task {j} was not measured after stage {i}")
        return found

    gaps = [cell(last, j) - cell(j, j) for j in range(last)]
    drops = [max(float(cell(i, j).mean()) for i in range(j, last)) - float(cell(last, j).mean()) for j in range(last)]
    return {
        "matrix": matrix,
        "average": float(np.mean([cell(last, j).mean() for j in range(last + 1)])),
        "backward_transfer": float(np.mean([gap.mean() for gap in gaps])) if gaps else 0.0,
        "backward_transfer_ci": list(bootstrap_runs([[gap] for gap in gaps])[0]) if gaps else [0.0, 0.0],
        "forgetting": float(np.mean(drops)) if drops else 0.0,
    }
