"""The answer template alone."""

from dlr_core.records import Sample


class Format:
    """1 for a completion that keeps the answer template, else 0: a control, for it can be had without being right."""

    def __call__(self, sample: Sample) -> float:
        """``sample.format``."""
        return sample.format
