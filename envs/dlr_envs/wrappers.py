"""Observations scaled to [-1, 1] by the bound of their Box, as ``MlpPolicy`` likes them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dlr_core.errors import ConfigError

Floats = NDArray[np.float32]


def _bound(space: gymnasium.Space[Any]) -> Floats:
    """The symmetric bound of a Box.

    Raises:
        ConfigError: not a Box, or without a finite bound.
    """
    if not isinstance(space, Box) or not space.is_bounded():
        raise ConfigError(f"expected observations in a bounded Box, got {space}")
    return np.maximum(np.abs(space.low), np.abs(space.high)).astype(np.float32)


class ScaleObservation(gymnasium.ObservationWrapper[Floats, Any, Floats]):
    """A single environment's observations divided by their bound."""

    def __init__(self, env: gymnasium.Env[Floats, Any]) -> None:
        super().__init__(env)
        self.bound = _bound(env.observation_space)
        self.observation_space = Box(-1.0, 1.0, self.bound.shape, np.float32)

    def observation(self, observation: Floats) -> Floats:
        """The observation in [-1, 1]."""
        return observation / self.bound


class VectorScaleObservation(VectorWrapper[Floats, Any, Floats, Any, Any]):
    """A vector environment's observations, ``final_obs`` among them, divided by their bound.

    Also under Stable-Baselines3: ``SB3VecEnv(VectorScaleObservation(env))``. Gymnasium's own
    ``VectorObservationWrapper`` refuses SAME_STEP autoreset.
    """

    def __init__(self, env: VectorEnv[Floats, Any, Any]) -> None:
        super().__init__(env)
        self.bound = _bound(env.single_observation_space)
        self.single_observation_space = Box(-1.0, 1.0, self.bound.shape, np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def scale(self, observations: Floats) -> Floats:
        """Unscaled observations (N, H), such as :func:`dlr_envs.compare.compare_policy` shows, in [-1, 1]."""
        return observations / self.bound

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Floats, dict[str, Any]]:
        """Reset; observations in [-1, 1]."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.scale(observation), info

    def step(self, actions: Any) -> tuple[Floats, Any, Any, Any, dict[str, Any]]:
        """Step; observations in [-1, 1], the last ones of ended episodes too."""
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            scaled = np.empty(self.num_envs, object)
            scaled[:] = [None if last is None else self.scale(last) for last in info["final_obs"]]
            info = {**info, "final_obs": scaled}
        return self.scale(observation), rewards, terminated, truncated, info
