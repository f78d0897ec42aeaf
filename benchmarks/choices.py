"""The measurements behind the defaults, on validation questions: anchors, then T, D and radius before any training.

    python benchmarks/choices.py anchors          accuracy of each anchor text and token limit
    python benchmarks/choices.py exploration      format, accuracy, best-of-8 and distinct answers under the policy at
                                                  its initial scale, for T x D x radius

Writes one JSON object per row to benchmarks/choices-<what>.jsonl and prints a Markdown table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from dlr_cli.host import load_host
from dlr_plugins.assistants.options import PolicyOptions

from dlr_core.config import resolve
from dlr_core.evaluate import PROMPTS, Evaluator
from dlr_core.pipeline import make_engine
from dlr_core.questions import distinct_items

SCALE = PolicyOptions().initial_scale


def engine_with(**space: Any) -> Any:
    """The default environment's engine with other settings of its space."""
    host = load_host()
    config = resolve({"space": {"name": "kv", **space}}, host)
    return make_engine(config, host)


def anchors(count: int) -> list[dict[str, Any]]:
    """Every hand-written prompt at three token limits."""
    engine = engine_with()
    evaluator, items = Evaluator(engine), distinct_items(engine.task, "validation", count)
    rows = []
    for limit in (8, 16, 32):
        engine.max_new_tokens = limit
        for prompt in ("", *PROMPTS):
            samples = evaluator.under_prompt(items, prompt).samples
            rows.append(
                {
                    "tokens": limit,
                    "prompt": prompt or "(plain)",
                    "right": float(np.mean([s.correct for s in samples])),
                    "format": float(np.mean([s.format for s in samples])),
                    "length": float(np.mean([s.tokens for s in samples])),
                }
            )
    return rows


def exploration(count: int, group: int = 8) -> list[dict[str, Any]]:
    """What ``group`` chains of one question give, decoded greedily, before training."""
    rows = []
    for latents, width, radius in [(8, 64, r) for r in (0.75, 1.0, 1.5, 2.0, 3.0)] + [
        (2, 64, 1.5), (4, 64, 1.5), (16, 64, 1.5), (8, 16, 1.5), (8, 256, 1.5),
    ]:  # fmt: skip
        engine = engine_with(num_latents=latents, latent_dim=width, radius=radius)
        items = [item for item in distinct_items(engine.task, "validation", count) for _ in range(group)]
        noise = np.random.default_rng(0).standard_normal((len(items), latents, width)).astype(np.float32)
        samples = Evaluator(engine).under_latents(items, np.tanh(SCALE * noise))
        right = np.array([s.correct for s in samples]).reshape(-1, group)
        answers = [{s.parsed for s in samples[i : i + group]} - {None} for i in range(0, len(samples), group)]
        rows.append(
            {
                "T": latents,
                "D": width,
                "radius": radius,
                "format": float(np.mean([s.format for s in samples])),
                "right": float(right.mean()),
                "best of 8": float(right.max(1).mean()),
                "distinct": float(np.mean([len(a) for a in answers])),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["anchors", "exploration"])
    parser.add_argument("--questions", type=int, default=0, help="validation questions (128 and 24)")
    args = parser.parse_args()
    rows = anchors(args.questions or 128) if args.what == "anchors" else exploration(args.questions or 24)
    path = Path(__file__).with_name(f"choices-{args.what}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else f"`{v}`" for v in row.values()) + " |")


if __name__ == "__main__":
    main()
