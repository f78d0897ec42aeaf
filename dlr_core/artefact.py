"""Saved latent spaces: ``space.json`` and ``space.safetensors`` in a folder, tied to one main model by its digest."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dlr_core.errors import ConfigError, ModelError, first_line
from dlr_core.host import PluginHost
from dlr_core.protocols import Decoder, Space


def save_space(
    space: Space, folder: Path, *, name: str, options: dict[str, Any], digest: str, notes: Any = None
) -> None:
    """Write an artefact that any environment can load by path."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in space.state_dict().items()}
    save_file(state, folder / "space.safetensors")
    described = {"name": name, "options": options, "main_model_digest": digest, "notes": notes}
    (folder / "space.json").write_text(json.dumps(described, indent=2) + "\n")


def described_space(folder: Path) -> tuple[str, dict[str, Any]]:
    """Name and options of a saved space, its chart fixed.

    Raises:
        ConfigError: not an artefact.
    """
    described = _described(folder)
    return described["name"], _fixed(described["options"])


def _described(folder: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads((folder / "space.json").read_text())
        return {**described, "name": str(described["name"]), "options": dict(described["options"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{folder} is not a latent-space artefact: {error}") from None


def _fixed(options: dict[str, Any]) -> dict[str, Any]:
    return options if options.get("chart") != "joint" else {**options, "chart": "random"}


def load_space(host: PluginHost, folder: Path, decoder: Decoder, sizes: dict[str, Any] | None = None) -> Space:
    """A saved space, its chart fixed.

    Raises:
        ConfigError: not an artefact, a damaged one, or options other than its own are asked for.
        ModelError: it was fitted on another main model.
    """
    described = _described(folder)
    options = described["options"]
    try:
        state, digest = load_file(folder / "space.safetensors"), str(described["main_model_digest"])
    except (OSError, KeyError, SafetensorError) as error:
        raise ConfigError(f"{folder} is not a latent-space artefact: {error}") from None
    if digest != decoder.fingerprint():
        raise ModelError(f"the space in {folder} was fitted on another main model (digest {digest[:12]}…)")
    for key, value in (sizes or {}).items():
        if options.get(key) != value:
            raise ConfigError(f"the space in {folder} has {key}={options.get(key)}, {value} was asked for")
    space: Space = host.create("space", described["name"], _fixed(options), decoder=decoder)
    try:
        space.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"the space in {folder} is damaged: {first_line(error)}") from None
    return space
