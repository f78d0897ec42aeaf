"""Files and folders that are whole or not there at all, whatever ends the program or the machine."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from dlr_core.errors import RunFolderError

SEAL = "seal.json"
"""Digests of a folder's files, written last."""


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, on the disk before going on."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(number)


def write_whole(path: Path, text: str) -> None:
    """Write to a temporary name, then rename it: a reader finds the old text or the new one, never half of it.

    Raises:
        RunFolderError: it cannot be written; what was there is as it was.
    """
    scratch = path.with_name(path.name + ".tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        sync(scratch)
        os.replace(scratch, path)
        sync(path.parent)
    except OSError as error:
        remove_file(scratch)
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error


def remove_file(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    try:
        path.unlink()
    except OSError:
        return


def seal(folder: Path, **about: Any) -> None:
    """Have every file of a folder on the disk, then write down their SHA-256 digests beside ``about``."""
    files = sorted(file for file in folder.iterdir() if file.name != SEAL)
    for file in files:
        sync(file)
    digests = {file.name: digest(file) for file in files}
    write_whole(folder / SEAL, json.dumps({"files": digests, **about}, indent=2) + "\n")


def read_seal(folder: Path) -> dict[str, Any]:
    """What :func:`seal` wrote; empty where there is no seal, or none that can be read."""
    try:
        found = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder; None if every file holds what was written.

    A folder without a seal, from before there were seals, is taken as it is. Digests tell accidents, and changes that
    forgot them; whoever rewrites them too is not found out, which is why nothing in these files is ever executed.
    """
    if not (folder / SEAL).is_file():
        return None
    files = read_seal(folder).get("files")
    if not isinstance(files, dict) or not files:
        return f"{SEAL} cannot be read"
    for name, expected in files.items():
        try:
            found = digest(folder / Path(name).name)
        except OSError as error:
            return f"{name}: {error.strerror or error}"
        if found != expected:
            return f"{name} is not what was written (its digest differs)"
    return None


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
