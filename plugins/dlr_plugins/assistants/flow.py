"""A flow over whole chains: noise is moved towards a chain step by step, and the density stays exact.

LaDi-RL (Kang et al. 2026, arXiv 2602.01705) lets a diffusion model write the chain by iterative denoising, so that the
policy can have several modes, and trains it by reinforcement learning. Here every denoising step is a conditional
affine coupling (Real NVP, Dinh et al. 2017, arXiv 1605.08803) with weights shared by all steps: it can be inverted, and
its Jacobian is triangular, so log π needs no bound, no Gaussian per step, and no trajectory. The paper denoises in the
latent space of a VAE trained on written reasoning; here the space is the action box, and nothing is pretrained.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from dlr_core.density import TanhGaussian, log_det_tanh
from dlr_core.protocols import ChainBatch
from dlr_plugins.assistants.block import Past
from dlr_plugins.assistants.small_gpt import STATIC_GAIN, SmallGPT

STEP_LIMIT = 0.5
"""Bound, in nats, on how far one step widens or narrows a coordinate."""
Inverse = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FlowPolicy:
    """π of chains: Gaussian noise through an invertible map and tanh. Satisfies :class:`dlr_core.density.Policy`."""

    log_std: Tensor
    """Of the Gaussian that the map begins from (N, T, D)."""
    pre_NTD: Tensor
    """The chains that it was made with."""
    known_NT: Tensor
    """log π of those."""
    inverse: Inverse
    """u → (the Gaussian's value, log |du/dz| per latent)."""

    def log_prob(self, pre: Tensor) -> Tensor:
        """log π(tanh(u_t) | x, earlier latents) (N, T), nats with respect to da; of its own chains it is known."""
        if pre is self.pre_NTD or torch.equal(pre, self.pre_NTD):
            return self.known_NT
        start, log_det_NT = self.inverse(pre)
        return density(start, self.log_std, log_det_NT, pre)

    def entropy(self) -> Tensor:
        """−log π of its own chains (N, T): an unbiased estimate where they were drawn from it."""
        return -self.known_NT

    def kl(self, other: TanhGaussian) -> Tensor:
        """log π − log other of its own chains (N, T): likewise an estimate of KL(self ‖ other)."""
        return self.known_NT - other.log_prob(self.pre_NTD)


def density(start: Tensor, log_std: Tensor, log_det_NT: Tensor, pre: Tensor) -> Tensor:
    """log N(z; 0, σ²) − log |du/dz| − Σ log |da/du|, per latent."""
    normal = -0.5 * (start * torch.exp(-log_std)).square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return (normal - log_det_tanh(pre)).sum(-1) - log_det_NT


class Flow(SmallGPT):
    """A conditional normalising flow that moves all latents at once, reading the question as ``small-gpt`` does.

    Step k keeps every second coordinate of each latent and moves the others: z ← z·exp(s) + m, where (s, m) come from
    a causal transformer over the question and the kept coordinates of the latents up to this one. u_t is therefore an
    invertible function of z_t given the earlier latents: the log-density is exact for every latent alone.
    """

    class Options(SmallGPT.Options):
        """Settings of ``flow``."""

        steps: int = Field(4, ge=2, description="Denoising steps; odd and even ones move different coordinates.")

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__(options, hidden_size, num_latents, latent_dim)
        self.steps = options.steps
        self.step_KW = nn.Parameter(torch.randn(options.steps, options.width) * 0.02)
        self.head = nn.Linear(options.width, 2 * latent_dim)
        # Half of the steps move a coordinate, and what they add goes the same way at first.
        nn.init.normal_(self.head.weight, std=2 * options.initial_mean / (options.steps * options.width**0.5))
        nn.init.zeros_(self.head.bias)

    def _coupling(
        self, kept_NTD: Tensor, step: int, gist: Tensor, pasts: list[Past], bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What step ``step`` does to each coordinate, given the kept ones: log scale and shift (N, T, D)."""
        hidden = gist + self.read_latent(kept_NTD.tanh()) + self.slot_TW + self.step_KW[step]
        for block, past in zip(self.blocks, pasts, strict=True):
            hidden, _ = block(hidden, past, bias)
        raw, shift = self.head(self.norm(hidden)).chunk(2, -1)
        return STEP_LIMIT * torch.tanh(raw / STEP_LIMIT), shift

    def _keeps(self, step: int, like: Tensor) -> Tensor:
        """1 on the coordinates (D,) that a step leaves as they are."""
        return ((torch.arange(like.shape[-1], device=like.device) + step) % 2).to(like.dtype)

    def _inverse(self, gist: Tensor, pasts: list[Past], bias: Tensor) -> Inverse:
        def undo(pre_NTD: Tensor) -> tuple[Tensor, Tensor]:
            moved, log_det_NT = pre_NTD - STATIC_GAIN * self.static_TD, pre_NTD.new_zeros(pre_NTD.shape[:2])
            for step in reversed(range(self.steps)):
                keep_D = self._keeps(step, moved)
                log_scale, shift = self._coupling(moved * keep_D, step, gist, pasts, bias)
                log_scale, shift = log_scale * (1 - keep_D), shift * (1 - keep_D)
                moved = (moved - shift) * torch.exp(-log_scale)
                log_det_NT = log_det_NT + log_scale.sum(-1)
            return moved, log_det_NT

        return undo

    def sample(self, states_BSH: Tensor, mask_BS: Tensor, noise_NTD: Tensor) -> ChainBatch:
        """Move noise to N = B·G chains; zero noise gives the chain that the centre of the noise goes to."""
        gist, pasts, bias = self._question(states_BSH, mask_BS, noise_NTD.shape[0] // states_BSH.shape[0])
        log_std = self.spread.policy(torch.zeros_like(noise_NTD)).log_std
        start = moved = log_std.exp() * noise_NTD
        log_det_NT = noise_NTD.new_zeros(noise_NTD.shape[:2])
        for step in range(self.steps):
            keep_D = self._keeps(step, moved)
            log_scale, shift = self._coupling(moved * keep_D, step, gist, pasts, bias)
            log_scale, shift = log_scale * (1 - keep_D), shift * (1 - keep_D)
            moved = moved * torch.exp(log_scale) + shift
            log_det_NT = log_det_NT + log_scale.sum(-1)
        pre_NTD = moved + STATIC_GAIN * self.static_TD
        known_NT = density(start, log_std, log_det_NT, pre_NTD)
        policy = FlowPolicy(log_std, pre_NTD, known_NT, self._inverse(gist, pasts, bias))
        return ChainBatch(noise_NTD, policy, pre_NTD)

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> FlowPolicy:
        """The policy at given latents, which are moved back to the noise that they came from."""
        gist, pasts, bias = self._question(states_BSH, mask_BS, pre_NTD.shape[0] // states_BSH.shape[0])
        log_std = self.spread.policy(torch.zeros_like(pre_NTD)).log_std
        inverse = self._inverse(gist, pasts, bias)
        start, log_det_NT = inverse(pre_NTD)
        return FlowPolicy(log_std, pre_NTD, density(start, log_std, log_det_NT, pre_NTD), inverse)
