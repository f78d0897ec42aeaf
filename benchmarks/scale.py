"""Growth on paper: bytes and seconds of a step against ranks, sizes of the main model and T, checked by short runs.

    python benchmarks/scale.py measure   # the default run on 1, 2 and 4 ranks, one thread each: benchmarks/scale.json
    python benchmarks/scale.py render    # the tables of docs/scale.md, and benchmarks/scale.png
    python benchmarks/scale.py show --model 7B --ranks 8 --questions 64   # one step of each, phase by phase

The model is in scale_shapes.py (sizes), scale_device.py (speeds), scale_step.py and scale_methods.py (a step's FLOPs
and bytes) and scale_memory.py (what a GPU holds). It is arithmetic on a few numbers; docs/scale.md says what it leaves
out.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from entries import HERE, command
from scale_device import H100
from scale_methods import grpo, ours
from scale_page import DOCUMENT, picture, render
from scale_runs import measure
from scale_shapes import SHAPES, Learner
from scale_step import Work
from scale_tables import LORA
from sheet import Sheet

from dlr_core.durable import write_whole

RESULT = HERE / "scale.json"


def phases(model: str, learner: Learner, work: Work, ranks: int) -> Sheet:
    """A step of each method on H100s."""
    shape = next(shape for shape in SHAPES if shape.name == model)
    rows = []
    steps = {
        "latents": ours(shape, learner, work, ranks),
        "GRPO": grpo(shape, work, ranks),
        "GRPO on LoRA": grpo(shape, work, ranks, adapters=LORA),
    }
    for name, step in steps.items():
        rows += [
            (name, p.name, f"{p.flops / 1e12:.2f}", f"{p.bytes / 1e9:.2f}", f"{p.seconds(H100):.3f}")
            for p in step.phases
        ]
        rows.append((name, "sent", "", f"{step.sent(ranks) / 1e9:.2f}", ""))
        rows.append((name, "step", f"{step.flops / 1e12:.2f}", "", f"{step.seconds(H100, ranks):.3f}"))
    return Sheet(("method", "of a rank's step", "TFLOP", "GB", "seconds"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, render, or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measuring = verbs.add_parser("measure", help="run, and write scale.json")
    measuring.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    measuring.add_argument("--steps", type=int, default=6)
    measuring.add_argument("--out", type=Path, default=RESULT)
    verbs.add_parser("render", help="write the tables and the picture")
    showing = verbs.add_parser("show", help="print one step")
    showing.add_argument("--model", choices=[shape.name for shape in SHAPES], default="7B")
    showing.add_argument("--ranks", type=int, default=8)
    showing.add_argument("--questions", type=int, default=64, help="B; search and replay grow with it")
    showing.add_argument("--latents", type=int, default=8, help="T")
    showing.add_argument("--assistant", type=int, help="parameters of another assistant than small-gpt")
    args = parser.parse_args(arguments)
    if args.verb == "measure":
        with tempfile.TemporaryDirectory() as room:
            found = {"command": command(), **measure(args.ranks, args.steps, Path(room))}
        write_whole(args.out, json.dumps(found, indent=1) + "\n")
    elif args.verb == "render":
        render(DOCUMENT, json.loads(RESULT.read_text(encoding="utf-8")))
        picture(HERE / "scale.png")
    else:
        if args.questions % args.ranks:
            parser.error(f"--questions: expected a multiple of --ranks={args.ranks}, got {args.questions}")
        part = args.questions / Work.questions
        work = replace(
            Work(), questions=args.questions, search=int(Work.search * part), fresh=int(Work.fresh * part),
            replay=int(Work.replay * part),
        )  # fmt: skip
        phases(args.model, Learner(latents=args.latents, given=args.assistant), work, args.ranks).print()


if __name__ == "__main__":
    main()
