"""Contracts and the algorithm of DeepLatent Reasoning. Imports none of its sibling packages."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlr_core.errors import ConfigError, DLRError, PluginError
from dlr_core.hookspecs import hookimpl
from dlr_core.host import PluginHost
from dlr_core.version import API_VERSION, __version__

if TYPE_CHECKING:
    from dlr_core.pipeline import DLRPipeline
    from dlr_core.trainer import Trainer

__all__ = [
    "API_VERSION",
    "ConfigError",
    "DLRError",
    "DLRPipeline",
    "PluginError",
    "PluginHost",
    "Trainer",
    "__version__",
    "hookimpl",
]

_LATE = {"DLRPipeline": "dlr_core.pipeline", "Trainer": "dlr_core.trainer"}
"""Names that bring torch with them are imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
