"""What a run was made with: versions, code, machine. Bits are only promised where all of it is the same."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dlr_core.version import __version__

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "gymnasium",
    "stable-baselines3",
    "reasoning-gym",
    "math-verify",
    "numpy",
    "safetensors",
)
GIT_SECONDS = 10
"""A repository on a slow disk must not hold a run up."""


def provenance() -> dict[str, Any]:
    """``{"dlr", "packages", "code", "machine"}``, JSON-ready."""
    return {
        "dlr": __version__,
        "packages": {name: installed_version(name) for name in PACKAGES},
        "code": code(Path(__file__).resolve().parents[1]),
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
    }


def installed_version(name: str) -> str:
    """Version of an installed distribution, or ``not installed``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def code(root: Path) -> dict[str, str | None] | None:
    """``{"commit", "changes"}`` of the repository that a folder is the root of; None if it is none.

    ``changes`` is a digest of what tracked files differ from the commit in, None where they do not. A package that is
    installed somewhere inside another repository is not that repository's code.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(top.decode().strip()).resolve() != root.resolve():
        return None
    diff = _git(root, "diff", "--no-ext-diff", "HEAD")
    changes = hashlib.sha256(diff).hexdigest()[:16] if diff else None
    return {"commit": commit.decode().strip(), "changes": changes}


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where there is no git, or it refuses."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for everything that two manifests were not made with alike.

    Args:
        was: a run's manifest.
        now: what :func:`provenance` says, with ``main_model`` and ``plugins`` as a manifest has them.
    """
    lines = []
    for name, key in (("dlr", "dlr"), ("main model digest", "main_model")):
        old, new = was.get(key), now.get(key)
        if key == "main_model":
            old, new = (dict(x or {}).get("digest_before") for x in (old, new))
        if old != new:
            lines.append(f"{name} was {old}, is {new}")
    for key in ("packages", "plugins", "machine"):
        old, new = was.get(key), dict(now.get(key) or {})
        if old is None:
            lines.append(f"the manifest does not name its {key}")
            continue
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                lines.append(f"{key}: {name} was {old.get(name, 'absent')}, is {new.get(name, 'absent')}")
    for key in ("device", "dtype"):
        old, new = (dict(x.get("main_model") or {}).get(key) for x in (was, now))
        if old is not None and old != new:
            lines.append(f"main model's {key} was {old}, is {new}")
    return lines + _code_differences(was.get("code"), now.get("code"))


def _code_differences(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    if not was or not now:
        side = "the manifest names" if not was else "this installation has"
        return [f"code: {side} no commit, so only versions can be compared"]
    if was["commit"] != now["commit"]:
        return [f"code: commit was {was['commit'][:12]}, is {now['commit'][:12]}"]
    if was["changes"] != now["changes"]:
        return [f"code: uncommitted changes were {was['changes'] or 'none'}, are {now['changes'] or 'none'}"]
    return []
