"""The memory benchmark: what each side measures, and what is made of it."""

import json

import memory
import memory_side
import numpy as np
import pytest

from dlr_core.config import resolve
from dlr_core.pipeline import build_trainer

SMALL = {
    "task.pool": 60,
    "decoder.max_new_tokens": 3,
    "space.num_latents": 2,
    "space.latent_dim": 4,
    "assistant.width": 16,
    "assistant.layers": 1,
    "batch.questions": 2,
    "batch.samples": 2,
    "replay.search": 3,
    "replay.capacity": 7,
    "replay.frontier": 5,
}
MB = 2**20


def test_stores_are_filled_to_the_brim_and_no_further(tiny_model, host):
    values = {"decoder": {"model": str(tiny_model)}, "loggers": []}
    for key, value in SMALL.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    trainer = build_trainer(resolve(values, host), host)
    memory_side.fill(trainer)
    successes = [entry.item.question for entry in trainer.rehearsal.buffer.entries]
    waiting = list(trainer.rehearsal.frontier.waiting)
    assert len(successes) == len(set(successes)) == 7
    assert len(waiting) == 5
    assert not set(successes) & set(waiting)
    assert trainer.step()["replay_size"] == 7


@pytest.mark.parametrize("side", ["inference", "ours"])
def test_a_side_prints_its_peaks(side, tiny_model, monkeypatch, capsys):
    chosen = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    line = ["memory_side.py", side, "--steps", "1", "--main-model", str(tiny_model), *chosen]
    monkeypatch.setattr("sys.argv", line)
    memory_side.main()
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["side"] == side
    assert found["baseline"] > 0
    if side == "ours":
        assert found["peak"] >= found["first_steps"]


def test_what_is_allocated_is_in_the_peak_though_it_is_given_back():
    peak = memory_side.Peak()
    peak.forget()
    block = np.ones(64 * MB // 8)
    del block
    peak.mark("after")
    assert 60 * MB < peak.marks["after"] < 100 * MB


def test_our_worst_case_is_compared_with_full_fine_tuning(monkeypatch, tmp_path):
    peaks = {
        "inference": 100, "ours": 150, "grpo-full": 600, "grpo-lora": 300, "inference, lean": 60, "ours, lean": 75,
        "grpo-full, lean": 450, "grpo-lora, lean": 200,
    }  # fmt: skip
    order = []

    def measured(self, turn):
        side = self.line[2] + ", lean" * bool({"decoder.packed=false", "--micro"} & set(self.line))
        order.append(side)
        self.found.append({"peak": peaks[side] * MB, "first_steps": 120 * MB})
        return float(peaks[side] * MB)

    monkeypatch.setattr(memory.Alone, "__call__", measured)
    memory.main(["--repeats", "2", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())["memory_vs_grpo"]
    assert (found["ratio"], found["n"]) == (4.0, 2)
    assert found["measured"]["training_over_inference"]["ours"] == 1.5
    assert found["measured"]["full_over_ours_stores_empty"] == 5.0
    assert found["measured"]["lora_over_ours"] == 2.0
    assert found["measured"]["training_over_inference"]["ours, lean"] == 1.25  # of what it is set to
    assert found["measured"]["full_over_ours_lean"] == 8.0
    assert found["measured"]["full_lean_over_ours_lean"] == 6.0
    assert sorted(order[:8]) == sorted(order[8:]) == sorted(peaks)
    assert (tmp_path / "memory_vs_grpo.png").is_file()


def test_a_side_that_fails_is_said():
    side = memory.Alone("ours", [])
    side.line = ["sh", "-c", "echo out of memory >&2; exit 1"]
    with pytest.raises(RuntimeError, match="out of memory"):
        side(0)
