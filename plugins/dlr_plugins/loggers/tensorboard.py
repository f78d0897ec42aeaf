"""TensorBoard events in the run folder."""

from collections.abc import Mapping
from typing import Any

from dlr_core.cost import SUMMED
from dlr_core.protocols import RunInfo, RunSummary

GROUPS = {
    "rollout": ("reward", "correct", "format", "best_of_k", "distinct_answers", "distinct_answers_tokens",
                "dead_groups", "search_correct", "search_best"),
    "cost": SUMMED,
    "policy": ("entropy", "kl", "scale"),
    "diversity": ("latent_distance", "question_distance", "effective_rank", "coherence"),
    "scorer": ("scorer_mse", "scorer_auroc", "scorer_calibration"),
    "replay": ("replay_size", "frontier", "question_cache_hits", "question_cache_mb"),
    "run": ("progress",),
}  # fmt: skip
TAGS = {key: f"{group}/{key}" for group, keys in GROUPS.items() for key in keys}
"""TensorBoard's names; what is not listed is a loss."""
FOLDER = "tensorboard"


class TensorBoard:
    """Every number of every step as TensorBoard events in the run folder."""

    def begin(self, run: RunInfo) -> None:
        """Open the event file; what an interrupted run wrote after its checkpoint is hidden."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and nobody but a run needs it

        first = run.earlier[-1]["step"] + 1 if run.earlier else None
        self._board = SummaryWriter(str(run.folder / FOLDER), purge_step=first)

    def step(self, metrics: Mapping[str, Any]) -> None:
        """One scalar per number."""
        number = metrics["step"]
        for key, value in metrics.items():
            if isinstance(value, int | float) and key != "step":
                self._board.add_scalar(TAGS.get(key, f"losses/{key}"), value, number)
        for key, value in metrics.get("phases", {}).items():
            self._board.add_scalar(f"seconds/{key}", value, number)

    def end(self, summary: RunSummary) -> None:
        """Flush and close."""
        self._board.close()
