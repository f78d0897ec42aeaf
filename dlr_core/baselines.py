"""Baselines from their folders: trained rivals that become rows of the control table."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlr_core.config import RunConfig
from dlr_core.errors import ConfigError, ModelError, RunFolderError
from dlr_core.host import Entry, PluginHost
from dlr_core.rundir import read_manifest
from dlr_core.saved import Baseline, check

ADAPTER = "adapter"
"""Subfolder in which a baseline's own files lie."""


@dataclass(frozen=True)
class Rival:
    """A trained baseline, ready to answer."""

    name: str
    """Its row's key: the folder's name."""
    label: str
    """What it is, for people."""
    prompt: str
    """Text that its answers begin with."""
    virtual_tokens: int
    decoder: Any
    """The frozen model under what was learned."""


def check_installed(entry: Entry) -> None:
    """Refuse a part whose library is missing, before anything slow: its class may say what it ``needs``.

    Raises:
        ConfigError: a module that it needs cannot be found.
    """
    needs: Mapping[str, str] = getattr(entry.factory, "needs", {})
    for module, requirement in needs.items():
        if find_spec(module) is None:
            raise ConfigError(f"{entry.kind} {entry.name!r} needs {module}: pip install '{requirement}'")


def check_gradient(config: RunConfig, host: PluginHost) -> None:
    """Raise unless the settings' decoder can be differentiated, which every baseline needs.

    Raises:
        ConfigError: it cannot.
    """
    name = config.decoder.name
    if not getattr(host.find("decoder", name).factory, "gives_gradient", True):
        raise ConfigError(f"a baseline needs the main model's gradient, which decoder {name!r} does not give")


def load_rival(folder: Path, host: PluginHost, decoder: Any, config: RunConfig) -> Rival:
    """A baseline that ``dlr baseline`` left, on a frozen model that is already there.

    Args:
        folder: its run folder.
        host: where baselines are registered.
        decoder: the frozen model.
        config: settings of the run that it is compared with, as that run was trained.

    Raises:
        RunFolderError: the folder holds no baseline, or a damaged one.
        ModelError: it was trained on another main model.
        ConfigError: it was trained on another task, or its library is missing.
    """
    manifest = read_manifest(folder)
    about = manifest.get("baseline")
    if about is None:
        raise RunFolderError(f"{folder} holds no baseline; train one with: dlr baseline prefix --out FOLDER")
    check(Baseline, about, folder / "manifest.json")
    theirs, ours = manifest["config"], config.model_dump(mode="json")
    for key in ("env", "task"):
        if theirs.get(key) != ours[key]:
            raise ConfigError(
                f"the baseline in {folder} was trained with {key} {theirs.get(key)}, the run with {ours[key]}"
            )
    check_installed(host.find("baseline", about["name"]))
    check_gradient(config, host)
    digest = manifest["main_model"]["digest_before"]
    if digest != decoder.fingerprint():
        raise ModelError(f"the baseline in {folder} was trained on another main model (digest {digest[:12]}…)")
    baseline = host.create("baseline", about["name"], about["options"], decoder=decoder)
    baseline.load(folder / ADAPTER)
    name = folder.resolve().name
    return Rival(name, baseline.label, about["prompt"], baseline.virtual_tokens, baseline.adapted())
