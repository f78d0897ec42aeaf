"""One side of the memory benchmark, alone in its process: prints what it used, in bytes, as one line of JSON.

python benchmarks/memory_side.py ours --steps 3

Peaks are the operating system's own (VmHWM on Linux, where the high-water mark is set back once the model is loaded, so
that what loading takes for a moment is not in it; ru_maxrss elsewhere), less what the process holds after its imports.
"""

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from dlr_cli.host import load_host

from dlr_core.assignments import merge, parse_assignment
from dlr_core.config import RunConfig, resolve
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer, env_kwargs
from dlr_core.trainer import Trainer

SIDES = ("inference", "ours", "grpo-full", "grpo-lora")


class Peak:
    """Memory of this process above what it held when this was made."""

    def __init__(self) -> None:
        self.baseline = psutil.Process().memory_info().rss
        self.marks: dict[str, int] = {}

    def forget(self) -> None:
        """From now on, where the system can do that."""
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")

    def mark(self, name: str) -> None:
        """The peak so far, under a name."""
        self.marks[name] = self._highest() - self.baseline

    def _highest(self) -> int:
        status = Path("/proc/self/status")
        if status.exists():
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
            return int(lines[0].split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def inference(config: RunConfig, host: PluginHost, peak: Peak, steps: int) -> None:
    """The environment of a run, stepped: the same batch, nothing learned."""
    env = host.make_env(config.env, num_envs=config.batch.questions * config.decodes, **env_kwargs(config, host))
    env.reset(seed=config.seed, options={"group_size": config.decodes})
    peak.forget()
    rng = np.random.default_rng(config.seed)
    for _ in range(steps):
        env.step(rng.uniform(-0.3, 0.3, env.action_space.shape).astype(np.float32))
    peak.mark("peak")


def ours(config: RunConfig, host: PluginHost, peak: Peak, steps: int) -> None:
    """A run's first steps, then its stores of successes and unsolved questions filled to the brim, then two more."""
    trainer = build_trainer(config, host)
    peak.forget()
    for _ in range(steps):
        trainer.step()
    peak.mark("first_steps")
    fill(trainer)
    for _ in range(2):
        trainer.step()
    peak.mark("peak")


def fill(trainer: Trainer) -> None:
    """Let a run remember as much as its settings allow: the most that it can hold.

    One completion a question: successes of one question would share its prompt. Every question gets a prompt of its own
    in memory, a copy of one of the few that are prefilled, and its completion, which is as long as the model makes it.
    """
    rehearsal, engine = trainer.rehearsal, trainer.env.engine
    group = max(trainer.config.batch.questions, trainer.config.replay.search)
    size, number = engine.task.size("train"), 0
    with torch.no_grad():
        cache = engine.prefill([engine.task.item("train", place).question for place in range(group)])
        zeros = torch.zeros(group, engine.space.num_latents, engine.space.latent_dim, device=engine.decoder.device)
        done = engine.decoder.decode(engine.space.inject(cache, zeros), engine.max_new_tokens)

    def more(right: bool) -> None:
        nonlocal number
        items = [engine.task.item("train", number + place) for place in range(group)]
        number += group
        rehearsal.questions.keep([item.question for item in items], cache)
        right_B = torch.full((group,), float(right), device=zeros.device)
        rehearsal.remember(items, done, right_B[:, None], right_B)

    while len(rehearsal.buffer.entries) < rehearsal.buffer.capacity and number + group <= size:
        more(right=True)
    while len(rehearsal.frontier.waiting) < rehearsal.frontier.capacity and number + group <= size:
        more(right=False)


def grpo(setting: str, micro: int | None) -> Callable[[RunConfig, PluginHost, Peak, int], None]:
    """TRL's first steps, with its own default of computing activations again to save memory."""

    def train(config: RunConfig, host: PluginHost, peak: Peak, steps: int) -> None:
        from grpo import engine_to_train, make_trainer

        limited = config.model_copy(update={"steps": steps, "minutes": None})
        engine = engine_to_train(config, host)
        rate = {"full": 1e-5, "lora": 1e-3}[setting]
        with tempfile.TemporaryDirectory() as folder:
            trainer, _, _ = make_trainer(engine, limited, setting, rate, Path(folder), checkpointing=True, micro=micro)
            peak.forget()
            trainer.train()
        peak.mark("peak")

    return train


def main() -> None:
    """Run one side, print its peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of a run")
    parser.add_argument("--micro", type=int, help="completions that TRL learns from at once; all if not given")
    args = parser.parse_args()
    if args.side.startswith("grpo"):
        import grpo as _  # noqa: F401  (its imports are part of the baseline)
    host = load_host()
    values: dict[str, Any] = {"loggers": []}
    merge(values, ["decoder", "model"], args.main_model)
    for text in args.set:
        merge(values, *parse_assignment(text))
    config = resolve(values, host)
    theirs = {f"grpo-{setting}": grpo(setting, args.micro) for setting in ("full", "lora")}
    sides = {"inference": inference, "ours": ours, **theirs}
    peak = Peak()
    sides[args.side](config, host, peak, args.steps)
    print(json.dumps({"side": args.side, "baseline": peak.baseline, **peak.marks}))


if __name__ == "__main__":
    main()
