"""The measurement of parity and of full batches, on the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_server_gives_the_same_completions_and_eight_clients_fill_its_batches(tiny_model, tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "serve_parity.py", "--main-model", tiny_model, "--questions", "40"]
    done = subprocess.run(
        [*command, "--limit", "6", "--json", tmp_path / "found.json"],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["questions"] == 40
    assert found["distinct"] > 4
    for row in (found["remote"], found["at_once"]):
        assert row["different"] == 0
        assert row["identical"] + row["near_ties"] == 40
    assert 1 <= found["at_once"]["mean_batch"] <= 8
    assert "mean batch with 8 clients at once:" in done.stdout
