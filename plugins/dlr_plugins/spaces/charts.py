"""Fixed charts: D directions in a space of some width."""

import torch
from torch import Tensor


def random_directions(count: int, width: int, seed: int) -> Tensor:
    """(count, width) Gaussian directions with entries of variance 1/count.

    A latent of unit variance moves each coordinate by 1.
    """
    generator = torch.Generator().manual_seed(seed)
    directions: Tensor = torch.randn(count, width, generator=generator) / count**0.5
    return directions


def principal_directions(features_MW: Tensor, count: int, seed: int) -> Tensor:
    """(count, width) leading principal directions of M feature vectors, scaled like :func:`random_directions`.

    Where there are fewer features than ``count`` the rest is random.
    """
    centred = features_MW - features_MW.mean(0)
    found = torch.linalg.svd(centred, full_matrices=False).Vh[:count]
    directions = random_directions(count, features_MW.shape[1], seed).to(features_MW)
    # A unit-norm direction has entries of variance 1/width.
    directions[: len(found)] = found * (features_MW.shape[1] / count) ** 0.5
    return directions
