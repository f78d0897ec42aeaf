"""Do learned latents beat random ones of the same size? (Random soft prompts: arXiv 2605.11936.)"""

import numpy as np

PASSES = 64
"""Clipping to the box shrinks what it clips; scaling and clipping again restores the size."""


class Random:
    """Fresh isotropic latents whose per-latent RMS equals the trained run's."""

    def __call__(self, latents_NTD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Gaussian directions scaled, latent by latent, to each trained latent's RMS; clipped to the box."""
        drawn = rng.standard_normal(latents_NTD.shape)
        for _ in range(PASSES):
            drawn = (drawn * (_rms(latents_NTD) / _rms(drawn))).clip(-1.0, 1.0)
        return drawn.astype(latents_NTD.dtype)


def _rms(latents_NTD: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(latents_NTD).mean(-1, keepdims=True)) + 1e-12  # type: ignore[no-any-return]
