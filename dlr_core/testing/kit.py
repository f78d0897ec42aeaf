"""Running the checks of a plugin's parts and telling what was found."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dlr_core.baselines import check_installed
from dlr_core.errors import ConfigError, DataError, PluginError, kind_and_line
from dlr_core.host import KINDS, Entry, PluginHost
from dlr_core.testing import checks
from dlr_core.testing.decoder import decoder as check_decoder

CHECKS: dict[str, Callable[..., None]] = {
    "assistant": checks.assistant,
    "baseline": checks.baseline,
    "control": checks.control,
    "reward": checks.reward,
    "contrastive": checks.contrastive,
    "scorer": checks.scorer,
    "estimator": checks.estimator,
    "space": checks.space,
    "refiner": checks.refiner,
    "decoder": check_decoder,
    "task": checks.task,
    "env": checks.env,
    "logger": checks.logger,
}
NEEDS_DECODER = ("space", "baseline", "refiner")
MAY_ASK = ("contrastive", "estimator")
"""Kinds whose parts may ask the frozen model (`asks_model`), and then need one to be checked."""
NONSENSE = "no_such_option_at_all"


@dataclass(frozen=True)
class Finding:
    """What was found of one part."""

    kind: str
    name: str
    ok: bool
    reason: str
    """The law that is broken, or why nothing was checked; empty if all is well."""


def check_plugin(host: PluginHost, plugin: str, decoder: Any = None) -> list[Finding]:
    """Check every part that a loaded plugin registered.

    Args:
        host: where it is loaded.
        plugin: its name (of its entry point).
        decoder: a frozen main model, for parts that need one; without it they are not checked. (Decoders are checked on
            a tiny one that is made for it.)

    Raises:
        ConfigError: no such plugin, or it registers nothing.
    """
    entries = [entry for kind in KINDS for entry in host.entries(kind) if entry.plugin == plugin]
    if not entries:
        raise ConfigError(f"no loaded plugin named {plugin!r} registers anything; see: dlr plugins list")
    return [check_component(host, entry, decoder) for entry in entries]


def check_component(host: PluginHost, entry: Entry, decoder: Any = None) -> Finding:
    """Check one registered part; whatever it raises becomes the finding's reason."""
    found = CHECKS[entry.kind]
    try:
        factory = entry.factory
    except PluginError as error:
        return Finding(entry.kind, entry.name, False, str(error))
    asks = entry.kind in NEEDS_DECODER or (entry.kind in MAY_ASK and getattr(factory, "asks_model", False))
    if asks and decoder is None:
        return Finding(entry.kind, entry.name, True, "not checked: it needs a main model")
    if getattr(factory, "needs_server", False):
        return Finding(entry.kind, entry.name, True, "not checked: it needs a server")
    try:
        check_installed(entry)
    except ConfigError as error:
        return Finding(entry.kind, entry.name, True, f"not checked: {error}")
    if "argument" in inspect.signature(factory).parameters:
        return Finding(entry.kind, entry.name, True, "not checked: its name takes an argument")

    def build(values: Mapping[str, Any] | None = None, **context: Any) -> Any:
        return host.create(entry.kind, entry.name, values, **context)

    try:
        if not entry.summary:
            raise PluginError("the class has no docstring: `dlr list` would show nothing")
        _refuses_nonsense(host, entry)
        if asks:
            found(build, decoder)
        else:
            found(build)
    except DataError as error:
        return Finding(entry.kind, entry.name, True, f"not checked: {error}")
    except PluginError as error:
        return Finding(entry.kind, entry.name, False, str(error))
    except Exception as error:  # a stranger's part may raise anything
        return Finding(entry.kind, entry.name, False, kind_and_line(error))
    return Finding(entry.kind, entry.name, True, "")


def _refuses_nonsense(host: PluginHost, entry: Entry) -> None:
    try:
        host.options(entry.kind, entry.name, {NONSENSE: 1})
    except ConfigError:
        return
    raise PluginError("unknown options are accepted: give Options model_config = ConfigDict(extra='forbid')")
