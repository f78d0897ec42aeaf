"""The policy's density: a squashed Gaussian, u ~ N(μ, σ²), a = tanh(u). The pre-squash u is what is stored.

log π(a) = log N(u; μ, σ) − Σ log(1 − tanh²u), with log(1 − tanh²u) = 2(log 2 − u − softplus(−2u)), which does not
lose digits for large |u| (Haarnoja et al. 2018, appendix C, in its stable form).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


def log_det_tanh(pre: Tensor) -> Tensor:
    """log |d tanh(u)/du|, elementwise, in nats."""
    return 2.0 * (math.log(2.0) - pre - softplus(-2.0 * pre))


class Policy(Protocol):
    """What learning asks of a policy π over chains. Most assistants have a :class:`TanhGaussian`."""

    @property
    def log_std(self) -> Tensor:
        """log σ (..., T, D) of the Gaussian noise that chains are made of."""

    def log_prob(self, pre: Tensor) -> Tensor:
        """log π(tanh(u_t) | x, earlier latents) per latent: (..., T, D) → (..., T), nats with respect to da."""

    def entropy(self) -> Tensor:
        """Differential entropy per latent (..., T), or an unbiased estimate of it."""

    def kl(self, other: "TanhGaussian") -> Tensor:
        """KL(self ‖ other) per latent (..., T), or an unbiased estimate of it."""


@dataclass(frozen=True)
class TanhGaussian:
    """Independent squashed Gaussians; ``mean`` and ``log_std`` broadcast to (..., T, D)."""

    mean: Tensor
    log_std: Tensor

    def log_prob(self, pre: Tensor) -> Tensor:
        """log π(tanh(u)) per latent: (..., T, D) → (..., T), nats with respect to da."""
        standard = (pre - self.mean) * torch.exp(-self.log_std)
        normal = -0.5 * standard.square() - self.log_std - 0.5 * math.log(2.0 * math.pi)
        return (normal - log_det_tanh(pre)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy of a per latent (..., T): H(u) + Σ E log(1 − tanh²u), by Gauss-Hermite quadrature."""
        nodes = torch.as_tensor(_NODES, dtype=self.mean.dtype, device=self.mean.device)
        weights = torch.as_tensor(_WEIGHTS / _WEIGHTS.sum(), dtype=self.mean.dtype, device=self.mean.device)
        pre = self.mean[..., None] + self.log_std.exp()[..., None] * nodes
        gaussian = self.log_std + 0.5 * math.log(2.0 * math.pi * math.e)
        return (gaussian + (log_det_tanh(pre) * weights).sum(-1)).sum(-1)

    def kl(self, other: "TanhGaussian") -> Tensor:
        """KL(self ‖ other) per latent (...,T): the squash is a bijection, so it is that of the pre-squash Gaussians."""
        ratio = torch.exp(2.0 * (self.log_std - other.log_std))
        shift = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + shift - 1.0)).sum(-1)
