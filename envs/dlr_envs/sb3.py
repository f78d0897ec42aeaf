"""Stable-Baselines3 on the vector environment: SB3's own DummyVecEnv would decode one by one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn


class SB3VecEnv(VecEnv):
    """An SB3 ``VecEnv`` over a :class:`dlr_envs.vector.LatentVectorEnv`, wrapped or not."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self.env = env
        self.render_mode = None
        self._pending: NDArray[Any] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> NDArray[Any]:
        """Observations (N, H) of fresh episodes; a seed given by ``seed()`` is used once."""
        seed: Any = None if self._seeds[0] is None else list(self._seeds)
        observation: NDArray[Any]
        observation, info = self.env.reset(seed=seed, options=self._options[0] or None)
        self.reset_infos = [_row(info, number) for number in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._pending = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step; ``terminal_observation`` and the finished episode's info are in each ended row's info."""
        if self._pending is None:
            raise RuntimeError("step_wait before step_async")
        observation, rewards, terminated, truncated, info = self.env.step(self._pending)
        dones = terminated | truncated
        infos: list[dict[str, Any]] = []
        for number in range(self.num_envs):
            row: dict[str, Any] = {"TimeLimit.truncated": bool(truncated[number] and not terminated[number])}
            if dones[number]:
                row.update(_row(info["final_info"], number))
                row["terminal_observation"] = info["final_obs"][number]
                self.reset_infos[number] = _row(info, number)
            infos.append(row)
        return observation, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute, the same for every sub-environment."""
        value = None if attr_name == "render_mode" else getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the one environment behind all rows."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector environment once; the result stands for every row."""
        value = getattr(self.env, method_name)(*args, **kwargs)
        return [value for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Never: there are no single environments inside."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """There is nothing to draw."""
        return [None] * self.num_envs


def _row(info: dict[str, Any], number: int) -> dict[str, Any]:
    """One sub-environment's share of a vector info."""
    row = {}
    for key, values in info.items():
        if not key.startswith("_") and not key.startswith("final_") and info[f"_{key}"][number]:
            row[key] = values[number].item() if hasattr(values[number], "item") else values[number]
    return row
