"""Can a run work here? What is installed, which plugins load, room, memory, network: each a check with what to do.

Libraries are imported where they are used: one that is missing is to be named, not to end the search.
"""

import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement

from dlr_core.errors import PluginError, first_line
from dlr_core.paths import expanded

if TYPE_CHECKING:
    from dlr_core.host import PluginHost

State = Literal["ok", "warning", "problem"]
DISTRIBUTION = "deeplatent-reasoning"
GIGABYTE = 1e9
NETWORK_SECONDS = 3.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    """``problem``: a run could not work."""
    found: str
    todo: str = ""
    """What to do about it; empty where all is well."""


def packages(distribution: str = DISTRIBUTION) -> list[Check]:
    """The project, every library that it requires, and the extras' libraries, against what is installed."""
    try:
        own, wanted = version(distribution), [Requirement(text) for text in requires(distribution) or []]
    except PackageNotFoundError:
        return [Check(distribution, "problem", "not installed: no plugin can be found", "pip install -e .")]
    found = [Check(distribution, "ok", f"{own}, Python {sys.version.split()[0]}")]
    for requirement in wanted:
        extra = _extra_of(requirement)
        if extra == "test" or (extra is None and requirement.marker and not requirement.marker.evaluate()):
            continue
        found.append(_package(requirement, extra))
    return found


def _extra_of(requirement: Requirement) -> str | None:
    """The extra that a requirement belongs to."""
    _, _, name = str(requirement.marker or "").partition("extra == ")
    return name.strip("\"' ") or None


def _package(requirement: Requirement, extra: str | None) -> Check:
    name, wanted = requirement.name, str(requirement.specifier) or "any version"
    todo = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install '{name}{requirement.specifier}'"
    try:
        installed = version(name)
    except PackageNotFoundError:
        if extra:
            return Check(name, "ok", f"not installed, which only {todo} needs")
        return Check(name, "problem", f"not installed, needed {wanted}", todo)
    if not requirement.specifier.contains(installed, prereleases=True):
        return Check(name, "warning" if extra else "problem", f"{installed} installed, needed {wanted}", todo)
    return Check(name, "ok", installed)


def plugins(host: "PluginHost") -> list[Check]:
    """Every plugin that was loaded, or why it was not, and parts that cannot be imported; our own must be there."""
    from dlr_core.host import KINDS, OWN

    found = [Check(f"plugin {name}", "ok", source) for name, source in host.distributions.items()]
    for skipped in host.skipped:
        own = skipped.plugin in OWN
        todo = f"reinstall {DISTRIBUTION}" if own else f"dlr plugins check {skipped.plugin}; or update or uninstall it"
        found.append(Check(f"plugin {skipped.plugin}", "problem" if own else "warning", skipped.reason, todo))
    for kind in KINDS:
        for entry in host.entries(kind):
            try:
                entry.factory  # noqa: B018 - imports it
            except PluginError as error:
                state: State = "problem" if entry.plugin in OWN else "warning"
                found.append(Check(f"{kind} {entry.name}", state, str(error), "reinstall the package that holds it"))
    known = {*host.distributions, *(skipped.plugin for skipped in host.skipped)}
    return found + [
        Check(f"plugin {name}", "problem", "no entry point", f"reinstall {DISTRIBUTION}")
        for name in OWN
        if name not in known
    ]


def device() -> Check:
    """Where ``decoder.device=auto`` computes, in what precision, and whether it does."""
    import torch

    name, dtype = ("cuda", "bfloat16") if torch.cuda.is_available() else ("cpu", "float32")
    try:
        torch.zeros(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        return Check("device", "problem", f"{name} does not compute: {reason}", "dlr run --set decoder.device=cpu")
    threads = f", {torch.get_num_threads()} threads" if name == "cpu" else f", {torch.cuda.get_device_name()}"
    return Check("device", "ok", f"{name}, {dtype}{threads}")


def writable(folder: Path) -> Check:
    """Can a run folder be made there?"""
    where, name = nearest(folder), f"folder {folder}"
    try:
        with tempfile.TemporaryDirectory(dir=where):
            return Check(name, "ok", "writable")
    except OSError as error:
        return Check(name, "problem", f"cannot be written: {error.strerror or error}", "dlr run --out ELSEWHERE")


def nearest(folder: Path) -> Path:
    """The folder itself, or what exists of the way to it."""
    folder = expanded(folder).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk(folder: Path, needed: float, what: str, *, spared: bool = False) -> Check:
    """Free bytes under a folder against what is needed; too few are no problem where a run can do without."""
    free, name = shutil.disk_usage(nearest(folder)).free, f"disk for {what}"
    if free < needed:
        lacking = f"{free / GIGABYTE:.1f} GB free, needed {needed / GIGABYTE:.1f}"
        todo = f"make room on the disk of {folder}" + (", or set TMPDIR; a run is slower without" if spared else "")
        return Check(name, "warning" if spared else "problem", lacking, todo)
    return Check(name, "ok", f"{free / GIGABYTE:.1f} GB free, needed {needed / GIGABYTE:.1f}")


def memory(least: float, default: float) -> Check:
    """Available bytes against the least with which a run works and what the default settings may take."""
    import psutil

    available = psutil.virtual_memory().available
    found = f"{available / GIGABYTE:.1f} GB available, the default takes up to {default / GIGABYTE:.1f}"
    if available < least:
        return Check(
            "memory", "problem", found, f"free {(least - available) / GIGABYTE:.1f} GB, or take a smaller model"
        )
    if available < default:
        return Check("memory", "warning", found, "take less: --set replay.at_once=8 --set decoder.packed=false")
    return Check("memory", "ok", found)


def unreachable(url: str, seconds: float = NETWORK_SECONDS) -> str | None:
    """Why a server does not answer, or None if it does; never longer than ``seconds``.

    Looking a name up knows no timeout, so it happens on a thread that is left behind if need be.
    """
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)  # a refusal is an answer
        except (OSError, ValueError) as error:
            outcome.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"no answer in {seconds:g} s"
