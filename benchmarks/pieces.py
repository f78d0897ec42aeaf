"""Long benchmarks in pieces: one training run each, in a process of its own, kept as one JSON file."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entries import command
from machine import machine

from dlr_core.durable import write_whole
from dlr_core.errors import ConfigError
from dlr_core.provenance import installed_version

PACKAGES = ("torch", "transformers", "trl", "peft")


class Pieces:
    """A folder of finished runs, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{name}.json"

    def read(self) -> dict[str, dict[str, Any]]:
        """Every piece there is."""
        found = sorted(self.folder.glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in found}

    def write(self, name: str, piece: Mapping[str, Any]) -> None:
        """Keep a finished run, with what it was made on and with; points of its curve one a line."""
        versions = {package: installed_version(package) for package in PACKAGES}
        whole = {**piece, "command": command(), "machine": machine(), "versions": versions}
        lines = []
        for key, value in whole.items():
            text = json.dumps(value)
            if key == "curve":
                text = "[\n  " + ",\n  ".join(json.dumps(point) for point in value) + "\n ]"
            lines.append(f" {json.dumps(key)}: {text}")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path(name), "{\n" + ",\n".join(lines) + "\n}\n")

    def of_one_machine(self, here: bool) -> None:
        """Seconds can only be compared on one machine with one number of threads.

        Args:
            here: whether it must be this one, because more pieces are to be made.

        Raises:
            ConfigError: pieces of several.
        """
        places = {piece["machine"] for piece in self.read().values()} | ({machine()} if here else set())
        if len(places) > 1:
            listed = "; ".join(sorted(places))
            raise ConfigError(f"{self.folder} would mix machines ({listed}): choose another --pieces folder")


def train(script: str, arguments: Sequence[object]) -> None:
    """Make one piece in a process of its own.

    Raises:
        CalledProcessError: it failed.
    """
    line = [sys.executable, str(Path(__file__).with_name(script)), "piece", *map(str, arguments)]
    print(" ".join(line[1:]), flush=True)
    subprocess.run(line, check=True, env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"})
