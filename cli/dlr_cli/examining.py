"""What ``dlr doctor`` looks at, and how it says what it found."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from dlr_cli.table import open_console
from dlr_core.errors import first_line
from dlr_core.health import GIGABYTE, Check, device, disk, memory, packages, plugins, unreachable, writable
from dlr_core.paths import expanded, is_file, is_folder

RUN_BYTES = 0.1 * GIGABYTE
"""A run of the default settings leaves half of it."""
WORKING_BYTES, DEFAULT_BYTES = 1.5 * GIGABYTE, 2.0 * GIGABYTE
"""Beside the main model: the least (packages, activations, the frozen weights in another order), and by default."""
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def examine(main_model: str, out: Path) -> list[Check]:
    """Every check, in the order in which a run would fail; packages alone where one is missing or too old."""
    installed = packages()
    if any(check.state == "problem" for check in installed):
        return installed
    from dlr_plugins.decoders import smollm2
    from dlr_plugins.decoders.loading import device_named

    from dlr_core.host import PluginHost
    from dlr_core.prompt_store import spacious
    from dlr_core.settings import ReplaySettings

    host = PluginHost.from_entry_points()
    model = _model(main_model)
    size = smollm2.MODEL_BYTES if main_model == smollm2.NAME else _size(expanded(main_model))
    replay = ReplaySettings()
    on_disk = replay.cached_on_disk(device_named("auto").type)
    in_memory = 0 if on_disk else replay.cache_bytes
    checks = [*installed, *plugins(host), device(), model]
    if main_model == smollm2.NAME:
        checks.append(_hub())
        if not smollm2.is_cached():
            checks.append(disk(smollm2.cache_root(), smollm2.FETCH_BYTES, "the main model"))
    checks.append(disk(out, RUN_BYTES, "runs"))
    if on_disk:
        checks.append(disk(spacious(), replay.cache_bytes, "prefilled prompts", spared=True))
    return [*checks, memory(size + WORKING_BYTES, size + DEFAULT_BYTES + in_memory), writable(out)]


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def _away() -> str | None:
    """Why the hub cannot be asked, None if it answers."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "switched off by HF_HUB_OFFLINE"
    return unreachable(_endpoint())


def _hub() -> Check:
    """The hub, which the default does not need."""
    away = _away()
    if away is None:
        return Check("hub", "ok", f"{_endpoint()} answers")
    todo = "nothing for the default model; others: give a folder or .gguf file with --main-model"
    return Check("hub", "warning", f"{_endpoint()}: {away}", todo)


def _model(name: str) -> Check:
    """Is the main model there, or can it be had?"""
    from dlr_plugins.decoders import smollm2
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if name == smollm2.NAME:
        return smollm2.examine()
    path, label = expanded(name), f"main model {name}"
    if is_file(path) or is_file(path / "config.json"):
        return Check(label, "ok", "found")
    if is_folder(path):
        return Check(label, "problem", "no config.json in it", "give a model folder, a .gguf file or a hub id")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        return Check(label, "problem", "not found", f"give {smollm2.NAME}, a folder, a .gguf file or a hub id")
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        return Check(label, "problem", first_line(error), "give a model folder, a .gguf file or a hub id")
    if isinstance(cached, str):
        return Check(label, "ok", "in the hub's cache")
    away = _away()
    if away is None:
        return Check(label, "warning", f"not fetched yet; {_endpoint()} answers", "the first run fetches it")
    return Check(label, "problem", f"not fetched yet, {_endpoint()}: {away}", "give a folder or .gguf file")


def _size(path: Path) -> float:
    """Bytes of a model's weights on disk; 0 where they are not there yet."""
    if is_file(path):
        return float(path.stat().st_size)
    return float(sum(file.stat().st_size for file in path.glob("*.safetensors"))) if is_folder(path) else 0.0


def print_checks(checks: Sequence[Check]) -> None:
    """A table of all, then a line for each that is not ok, with what to do."""
    console = open_console()
    table = Table("", "state", "found")
    for check in checks:
        table.add_row(check.name, Text(check.state, STYLES[check.state]), check.found)
    console.print(table)
    for check in checks:
        if check.state != "ok":
            line = f"{check.state}: {check.name}: {check.found}; to do: {check.todo}"
            console.print(line, highlight=False, soft_wrap=True)
    problems = sum(check.state == "problem" for check in checks)
    console.print(f"{problems} problems: a run could not work" if problems else "a run can work", highlight=False)
