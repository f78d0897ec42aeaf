"""Do the latents carry the question, or would any question's do?"""

import numpy as np


class Shuffled:
    """Every question gets another question's trained latents."""

    def __call__(self, latents_NTD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A cyclic shift of a random order: no row keeps its own latents (unless there is only one)."""
        order = rng.permutation(len(latents_NTD))
        shuffled = np.empty_like(latents_NTD)
        shuffled[order] = latents_NTD[np.roll(order, 1)]
        return shuffled
