"""Which task a run is on and with what options, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

from dlr_core.env_spec import EnvSpec
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost


def task_of(env: str, chosen: Mapping[str, Any], host: PluginHost) -> tuple[str, dict[str, Any]]:
    """Name and options of the task of an environment, under settings that may change both.

    Args:
        env: the environment's id.
        chosen: the settings' table ``task``: a ``name``, and options; either may be missing.
        host: where both are registered.

    Raises:
        ConfigError: no such environment, or one that leaves its task open, and none is named.
    """
    spec: EnvSpec = host.create("env", env)
    name = chosen.get("name") or spec.task
    if name is None:
        raise ConfigError(f"{env} needs a task: --set task.name=reasoning-gym:gcd")
    options = {key: value for key, value in chosen.items() if key != "name"}
    return name, {**(spec.task_kwargs if name == spec.task else {}), **options}


def task_problems(env: str, chosen: Mapping[str, Any], host: PluginHost) -> list[str]:
    """What is wrong with the task's name and options, found without making the task.

    A task's class may have a classmethod ``check(options, argument)`` that raises ConfigError, ``argument`` being what
    follows the colon in a name like ``kind:argument``.
    """
    if env not in host.names("env") or not isinstance(host.create("env", env), EnvSpec):
        return []  # named elsewhere
    try:
        name, options = task_of(env, chosen, host)
        validated = host.options("task", name, options)
        check = getattr(host.find("task", name).factory, "check", None)
        if check is not None:
            check(validated, name.partition(":")[2])
    except ConfigError as error:
        return list(error.problems)
    return []
