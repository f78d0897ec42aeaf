"""Contracts and the algorithm of DeepLatent Reasoning. Imports none of its sibling packages."""

from dlr_core.errors import ConfigError, DLRError, PluginError
from dlr_core.hookspecs import hookimpl
from dlr_core.host import PluginHost
from dlr_core.version import API_VERSION, __version__

__all__ = [
    "API_VERSION",
    "ConfigError",
    "DLRError",
    "PluginError",
    "PluginHost",
    "__version__",
    "hookimpl",
]
