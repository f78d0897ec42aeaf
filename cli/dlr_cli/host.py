"""The command line's plugin host: loads every plugin, and says which ones it could not."""

import sys
from typing import Any

import gymnasium

from dlr_core.host import PluginHost


def load_host() -> PluginHost:
    """All plugins; each one skipped is a line on stderr."""
    host = PluginHost.from_entry_points()
    for skipped in host.skipped:
        print(f"warning: {skipped}", file=sys.stderr)
    return host


def make_learner_env(name: str, *, num_envs: int, **kwargs: Any) -> Any:
    """The vector environment of an id, registered first if a plugin brought it."""
    from dlr_envs import register_env

    host: PluginHost = kwargs["host"]
    register_env(name, host.create("env", name))
    return gymnasium.make_vec(name, num_envs=num_envs, **kwargs)
