"""Are the latents one good prompt for all questions?"""

import numpy as np


class Mean:
    """Every question gets the trained run's average latents: a static soft prompt."""

    def __call__(self, latents_NTD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The mean over questions, repeated."""
        return np.broadcast_to(latents_NTD.mean(0, keepdims=True), latents_NTD.shape).astype(latents_NTD.dtype)
