"""Paths that people and files name: asking about one never raises, whatever it holds."""

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with ``~`` as the home folder; as it stands where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there. A name that is too long, or not to be looked at, is none."""
    try:
        return expanded(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether a file is there; likewise."""
    try:
        return expanded(path).is_file()
    except (OSError, ValueError):
        return False
