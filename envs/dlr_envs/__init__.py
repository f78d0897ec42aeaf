"""Gymnasium environments whose action is a latent reasoning chain. Importing this registers the ``dlr/*`` ids."""

import gymnasium

from dlr_core.env_spec import EnvSpec
from dlr_envs.register import BUILTIN

__all__ = ["register_env"]


def register_env(name: str, spec: EnvSpec) -> None:
    """Register an id with Gymnasium, single and vector; keyword arguments of ``make`` override the spec's."""
    if name not in gymnasium.registry:
        kwargs = {
            "task": spec.task,
            "task_kwargs": dict(spec.task_kwargs),
            "max_new_tokens": spec.max_new_tokens,
        }
        gymnasium.register(
            name,
            entry_point="dlr_envs.single:LatentEnv",
            vector_entry_point="dlr_envs.vector:LatentVectorEnv",
            kwargs=kwargs,
        )


for _name, _spec in BUILTIN.items():
    register_env(_name, _spec())
