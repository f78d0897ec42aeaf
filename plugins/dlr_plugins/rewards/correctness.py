"""The task's verifier alone."""

from dlr_core.records import Sample


class Correctness:
    """The verifier's score: 1 for a right answer, 0 for a wrong one."""

    def __call__(self, sample: Sample) -> float:
        """``sample.correct``."""
        return sample.correct
