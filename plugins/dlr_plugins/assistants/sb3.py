"""A policy that Stable-Baselines3 trained, without Stable-Baselines3: an MLP on the environment's first observation."""

from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch

ACTIVATIONS = {kind.__name__: kind for kind in (nn.Tanh, nn.ReLU, nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU)}
EDGE = 1.0 - 2.0**-24
"""The largest float32 below 1: latents are kept as u = atanh(a), and atanh(1) is infinite."""


class SB3Policy(nn.Module):
    """A policy trained by Stable-Baselines3 and written by dlr_envs.export; evaluated, not trained."""

    observes = True
    shift_H: Tensor
    scale_H: Tensor

    class Options(BaseModel):
        """The network's shape; the export writes it."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        hidden: tuple[int, ...] = Field((64, 64), description="Widths of the hidden layers.")
        activation: Literal["Tanh", "ReLU", "ELU", "GELU", "LeakyReLU", "SiLU"] = Field(
            "Tanh", description="After every hidden layer."
        )
        squash: Literal["clip", "tanh"] = Field(
            "clip", description="clip: a Gaussian cut off at the box (PPO, A2C); tanh: a squashed one (SAC)."
        )
        clip_observation: float | None = Field(
            None, gt=0, description="Bound on standardised observations (VecNormalize); none if not given."
        )

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.options, self.shape = options, (num_latents, latent_dim)
        self.register_buffer("shift_H", torch.zeros(hidden_size))
        self.register_buffer("scale_H", torch.ones(hidden_size))
        widths, actions = [hidden_size, *options.hidden], num_latents * latent_dim
        self.net = nn.Sequential()
        for fan_in, fan_out in pairwise(widths):
            self.net.extend([nn.Linear(fan_in, fan_out), ACTIVATIONS[options.activation]()])
        self.mean = nn.Linear(widths[-1], actions)
        by_question = options.squash == "tanh"
        self.log_std = nn.Linear(widths[-1], actions) if by_question else nn.Parameter(torch.zeros(actions))

    def _gaussian(self, states_BSH: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Mean and log σ (N, T, D) of SB3's own Gaussian, from the last state: the observation."""
        seen_BH = (states_BSH[:, -1] - self.shift_H) / self.scale_H
        if self.options.clip_observation is not None:
            seen_BH = seen_BH.clamp(-self.options.clip_observation, self.options.clip_observation)
        features = self.net(seen_BH)
        mean = self.mean(features)
        log_std = self.log_std.expand_as(mean) if isinstance(self.log_std, nn.Parameter) else self.log_std(features)
        repeats = rows // len(states_BSH)
        mean, log_std = (part.unflatten(-1, self.shape).repeat_interleave(repeats, 0) for part in (mean, log_std))
        return mean, log_std.clamp(-20.0, 2.0)  # SAC's own limits

    def _policy(self, mean_NTD: Tensor, log_std_NTD: Tensor) -> TanhGaussian:
        """The density of u. Where SB3 clips it is the squashed Gaussian that agrees with SB3's to first order."""
        if self.options.squash == "tanh":
            return TanhGaussian(mean_NTD, log_std_NTD)
        slope = torch.log1p(-mean_NTD.clamp(-0.95, 0.95).square())
        return TanhGaussian(mean_NTD.clamp(-EDGE, EDGE).atanh(), log_std_NTD - slope)

    def sample(self, states_BSH: Tensor, mask_BS: Tensor, noise_NTD: Tensor) -> ChainBatch:
        """Chains as SB3 draws them; zero noise gives ``model.predict(observation, deterministic=True)``."""
        mean, log_std = self._gaussian(states_BSH, len(noise_NTD))
        drawn = mean + log_std.exp() * noise_NTD
        pre = drawn if self.options.squash == "tanh" else drawn.clamp(-EDGE, EDGE).atanh()
        return ChainBatch(noise_NTD, self._policy(mean, log_std), pre)

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> TanhGaussian:
        """The density at given latents; it does not depend on them."""
        return self._policy(*self._gaussian(states_BSH, len(pre_NTD)))
