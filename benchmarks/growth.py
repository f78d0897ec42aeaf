"""Time and memory of a training step against B, K, T, the length of a prompt, and the size of the main model.

OMP_NUM_THREADS=1 python benchmarks/growth.py            # measures, writes growth.json, growth.png, docs/growth.md
python benchmarks/growth.py --render                     # picture and page alone

A step is the default run's, whole: rollout, update, search on 16 questions, two replays of 32 successes. Its stores are
put back after every step; their prompts are few and shared (a run's are memory that is held, and cost a step nothing).
All points take turns, the order of each turn moved on. Seconds are CPU time of the process, with one thread: fair where
other programs want the processor too. Memory is the operating system's own peak (VmHWM, set back before every step)
above what the process holds then.

Random models have SmolLM2's shape; nothing that they say ends, so all completions have 8 tokens.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dlr_plugins.decoders import smollm2
from entries import HERE, command
from growth_page import write_page
from growth_points import AXES, MODELS, Point, RandomModel
from growth_task import SIZE, GrowthPlugin
from machine import machine
from memory_side import Peak
from trimmed import trim

from dlr_core.config import resolve
from dlr_core.durable import write_whole
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer
from dlr_core.replay import Success
from dlr_core.trainer import Trainer

RESULT = HERE / "growth.json"
SUCCESSES, UNSOLVED, PREFILLED = 256, 64, 8
KEPT = ("main_flops", "assistant_flops", "prefilled", "decoded", "scored")
"""Of a step's metrics."""
Cell = dict[str, list[float]]


def random_models(room: Path) -> dict[RandomModel, Path]:
    """A folder each, with the real model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where, folders = smollm2.folder(), {}
    for number, model in enumerate(MODELS):
        config = AutoConfig.from_pretrained(where)
        config.update(model.config())
        torch.manual_seed(0)
        folders[model] = room / str(number)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folders[model])
        AutoTokenizer.from_pretrained(where).save_pretrained(folders[model])
    return folders


def ready(point: Point, host: PluginHost, folders: Mapping[RandomModel, Path]) -> Trainer:
    """A trainer of a point's settings, which remembers what a step draws from."""
    trainer = build_trainer(resolve(point.values(folders), host), host)
    task: Any = trainer.env.engine.task
    task.words, task.available = point.words, SIZE
    trainer.env.reset(seed=0, options={"group_size": trainer.config.decodes})  # the first questions were short
    remember(trainer)
    for parameter in trainer.parameters:  # Adam's moments are held from here on: they are in no step's peak
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return trainer


def remember(trainer: Trainer) -> None:
    """Successes and unsolved questions; a few prompts are prefilled, and stand for all."""
    engine, rehearsal = trainer.env.engine, trainer.rehearsal
    items = [engine.task.item("train", SIZE - 1 - number) for number in range(SUCCESSES + UNSOLVED)]
    texts, held = [item.question for item in items[:PREFILLED]], rehearsal.questions.held
    with torch.no_grad():
        rehearsal.questions.prompts(texts)
    for number, item in enumerate(items):
        held[item.question] = held[texts[number % PREFILLED]]  # the same one: it takes no memory
        if number < SUCCESSES:
            ids_1L, _ = engine.decoder.encode_targets([engine.task.gold_text(item)])
            rehearsal.buffer.add(Success(item, tuple(ids_1L[0].tolist()), 1.0))
        else:
            rehearsal.frontier.add(item)


def step(trainer: Trainer, cell: Cell) -> None:
    """One step, into a point's lists; the stores are as they were afterwards."""
    buffer, frontier = trainer.rehearsal.buffer, trainer.rehearsal.frontier
    before = list(buffer.entries), dict(frontier.waiting)
    trim()
    peak = Peak()
    peak.forget()
    began = time.process_time()
    metrics = trainer.step()
    cell["seconds"].append(time.process_time() - began)
    peak.mark("step")
    cell["bytes"].append(peak.marks["step"])
    for key in KEPT:
        cell[key].append(metrics[key])
    buffer.entries, frontier.waiting = before


def size(point: Point, trainer: Trainer) -> float:
    """Where a point lies on its axis."""
    engine = trainer.env.engine
    if point.axis == "prompt":
        return float(engine.cache.mask_NS.shape[1])
    if point.axis == "model":
        per_token = engine.decoder.flops_per_token
        return (per_token.body + per_token.head) / 2e6
    return point.value


def measure(turns: int, room: Path) -> dict[str, Any]:
    """All points, in turns."""
    host = PluginHost.from_entry_points()
    host.add(GrowthPlugin(), "growth")
    folders = random_models(room)
    trainers: dict[str, Trainer] = {}
    cells: dict[str, Cell] = {}
    axes: dict[str, list[dict[str, Any]]] = {}
    for axis, points in AXES.items():
        axes[axis] = []
        for point in points:
            if point.same not in trainers:
                trainers[point.same] = ready(point, host, folders)
                cells[point.same] = {key: [] for key in ("seconds", "bytes", *KEPT)}
            axes[axis].append({"x": size(replace(point, axis=axis), trainers[point.same]), "cell": point.same})
    names = list(trainers)
    for turn in range(turns):
        shift = turn * len(names) // turns
        for name in names[shift:] + names[:shift]:
            step(trainers[name], cells[name])
        print(f"turn {turn + 1} of {turns}: {time.process_time():.0f} s of CPU in all", flush=True)
    return {axis: [{"x": at["x"], **cells[at["cell"]]} for at in found] for axis, found in axes.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    args = parser.parse_args(arguments)
    if not args.render:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as room:
            axes = measure(args.turns, Path(room))
        about = {"command": command(), "machine": machine(), "turns": args.turns, "cpu_seconds": time.process_time()}
        write_whole(RESULT, json.dumps({**about, "axes": axes}, indent=1) + "\n")
    write_page(json.loads(RESULT.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
