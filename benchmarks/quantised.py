"""What bfloat16 products, and 16, 8 and 4 bits a weight, cost the default main model: accuracy, seconds, memory.

OMP_NUM_THREADS=1 python benchmarks/quantised.py

One process with the model five times: all bits, all bits with bfloat16 products (where there are some), float16, int8,
int4. The anchor's and a hand-written prompt's accuracy on validation questions, and the share of completions that are
the full weights' to the letter. Then decoding 32 chains of 4 questions, and scoring their completions with gradients,
in turns; CPU time of one thread, which another program on the machine disturbs less than it does the wall clock.
Memory is that of all weights and packed copies, and the peak of one scoring pass above what was held before it (VmHWM,
set back).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from dlr_cli.host import load_host
from dlr_plugins.decoders.products import multiplies_bfloat16
from documented import DOCS, document
from entries import HERE, command
from interleaved import alternate, ratio_of_medians, timed
from machine import machine
from memory_side import Peak
from shared_prompts import Bench
from sheet import Sheet, spread
from trimmed import trim

from dlr_core.config import resolve
from dlr_core.durable import write_whole
from dlr_core.evaluate import Answers, Evaluator
from dlr_core.pipeline import make_engine
from dlr_core.questions import distinct_items
from dlr_core.stats import bootstrap_mean

BFLOAT16 = "full, bfloat16 products"
KINDS = {
    "full": {}, BFLOAT16: {"products": "bfloat16"}, "float16": {"weights": "float16"},
    "int8": {"weights": "int8"}, "int4": {"weights": "int4"},
}  # fmt: skip
"""Settings of the decoder."""
PROMPT = "Result:"
"""The best hand-written one of the default run."""
MB = 1e6


def engine_of(settings: Mapping[str, str], model: str) -> Any:
    """An environment's engine."""
    host = load_host()
    config = resolve({"decoder": {"model": model, **settings}, "loggers": []}, host)
    return make_engine(config, host)


def answers(engine: Any, questions: int) -> dict[str, Answers]:
    """Under the anchor and under the prompt."""
    evaluator, space = Evaluator(engine), engine.space
    items = distinct_items(engine.task, "validation", questions, 0)
    blank = np.zeros((len(items), space.num_latents, space.latent_dim), np.float32)
    return {"anchor": evaluator.under_each(items, {"anchor": blank})["anchor"],
            "prompt": evaluator.under_prompt(items, PROMPT)}  # fmt: skip


def texts(found: Answers) -> list[str]:
    """What was written."""
    return [sample.completion for sample in found.samples]


def held(decoder: Any) -> int:
    """Bytes of weights, buffers and packed copies."""
    groups = {one.together for one in decoder.packed}
    copies = [copy for together in groups for copy in together.held]
    own = [part for part in decoder.model.parameters() if not part.is_meta]  # of a packed layer that keeps none
    return sum(int(part.nbytes) for part in [*own, *decoder.model.buffers(), *copies])


def peak_of(work: Any) -> int:
    """Bytes above what is held now."""
    trim()
    peak = Peak()
    peak.forget()
    work()
    peak.mark("pass")
    return peak.marks["pass"]


def sheet(cells: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """A row for every kind of weights."""
    head = ("weights", "MB held", "MB of a scoring pass", "anchor %", "prompt %", "same completions, anchor %",
            "same, prompt %", "decoding, CPU s", "× full", "scoring, CPU s", "× full")  # fmt: skip
    rows = []
    for name, cell in cells.items():
        figures = [f"{cell['held_mb']:.0f}", f"{cell['pass_mb']:.0f}"]
        for row in ("anchor", "prompt"):
            low, high = cell["ci"][row]
            figures.append(f"{100 * cell['accuracy'][row]:.1f} ({100 * low:.1f} … {100 * high:.1f})")
        figures += [f"{100 * cell['same'][row]:.0f}" for row in ("anchor", "prompt")]
        for work in ("decode", "score"):
            slower = ratio_of_medians(cells["full"][work], cell[work])
            figures += [spread(cell[work]), f"{slower.ratio:.2f} ({slower.low:.2f} … {slower.high:.2f})"]
        rows.append((name, *figures))
    return Sheet(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write, document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=HERE / "quantised.json")
    args = parser.parse_args(arguments)
    kinds = {kind: settings for kind, settings in KINDS.items() if kind != BFLOAT16 or multiplies_bfloat16()}
    engines = {kind: engine_of(settings, args.main_model) for kind, settings in kinds.items()}
    benches = {kind: Bench(engine.decoder, engine.space, 48, 4, 8, 8) for kind, engine in engines.items()}
    cells: dict[str, dict[str, Any]] = {}
    for kind, engine in engines.items():
        benches[kind].score()
        cells[kind] = {"held_mb": held(engine.decoder) / MB, "pass_mb": peak_of(benches[kind].score) / MB}
    for work in ("decode", "score"):
        spent = alternate([timed(getattr(bench, work), process_time) for bench in benches.values()], args.turns)
        for kind, seconds in zip(kinds, spent, strict=True):
            cells[kind][work] = seconds
    told = {kind: answers(engine, args.questions) for kind, engine in engines.items()}
    for kind, rows in told.items():
        cells[kind]["accuracy"] = {row: float(found.correct_N.mean()) for row, found in rows.items()}
        cells[kind]["ci"] = {row: bootstrap_mean(found.correct_N) for row, found in rows.items()}
        cells[kind]["same"] = {
            row: float(np.mean([texts(found)[n] == text for n, text in enumerate(texts(told["full"][row]))]))
            for row, found in rows.items()
        }
    about = {"command": command(), "machine": machine(), "questions": args.questions, "prompt": PROMPT}
    write_whole(args.out, json.dumps({**about, "cells": cells}, indent=1) + "\n")
    found = sheet(cells)
    found.print()
    if args.out.parent == HERE:
        document(DOCS / "memory.md", "quantised", found.markdown())


if __name__ == "__main__":
    main()
