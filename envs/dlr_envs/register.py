"""The built-in environment ids. An id's version is bumped whenever its results would change."""

from typing import Any

from dlr_core.env_spec import EnvSpec
from dlr_core.hookspecs import Register, hookimpl

DLR_API_VERSION = 1


def chain_sum() -> EnvSpec:
    """Sums and differences of two numbers of one or two digits; the search is told that answers may be negative."""
    kwargs = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2, "pool": 4096}
    return EnvSpec("reasoning-gym:chain_sum", kwargs, 8, 600, openings=("", " -"))


def products() -> EnvSpec:
    """Products of two numbers of one or two digits."""
    kwargs = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2, "pool": 4096}
    return EnvSpec("reasoning-gym:products", kwargs, 16, 300)


def letter_counting() -> EnvSpec:
    """How often a letter occurs in a text."""
    return EnvSpec("reasoning-gym:letter_counting", {"pool": 4096}, 24, 200)


def gsm8k() -> EnvSpec:
    """Grade-school word problems (give task.path, or have `datasets` and a network)."""
    return EnvSpec("gsm8k", {}, 128, 16)


def reasoning() -> EnvSpec:
    """Any task by name, such as reasoning-gym:gcd."""
    return EnvSpec(None, {}, 64, 64)


BUILTIN = {
    "dlr/ChainSum-v0": chain_sum,
    "dlr/Products-v0": products,
    "dlr/LetterCounting-v0": letter_counting,
    "dlr/GSM8K-v0": gsm8k,
    "dlr/Reasoning-v0": reasoning,
}


@hookimpl
def dlr_register_env(register: Register) -> None:
    """The built-in environments."""
    for name, spec in BUILTIN.items():
        register(name, spec)


@hookimpl
def dlr_make_env(name: str, spec: EnvSpec, num_envs: int, kwargs: dict[str, Any]) -> Any:
    """Gymnasium's vector environment, the id registered first if a plugin brought it."""
    import gymnasium

    from dlr_envs import register_env

    register_env(name, spec)
    return gymnasium.make_vec(name, num_envs=num_envs, **kwargs)
