"""The anchor alone."""

import numpy as np


class Zero:
    """All-zero latents: the anchor text, unchanged."""

    def __call__(self, latents_NTD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Zeros."""
        return np.zeros_like(latents_NTD)
