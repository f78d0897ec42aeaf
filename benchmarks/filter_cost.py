"""The filter before decoding: what a target accuracy costs in all, decoding K of G = 16 chains, K/G from 1 to 1/8.

python benchmarks/filter_cost.py run                     # trains every piece that is missing, then sums up
python benchmarks/filter_cost.py piece --keep 3 --seed 0
python benchmarks/filter_cost.py show

The settings are those of benchmarks/filter.toml (the same number of questions for all, no search), the scorer is
``learned`` where fewer than all are decoded. Every FLOP counts: main model, assistant, scorer, forward and backward.
The target lies halfway between the untrained accuracy and what decoding all ends with, mean over seeds. A seed's cost
is that of the first point of its curve from which on no point is below. The ratio is the cost of decoding all over
that of the 3 of 16 that the paper's share comes to, median over seeds; its low and high are the worst and the best
seed; a seed that never stays above the target counts as 0.

Where ``make results`` has kept runs of the sweep, what they ended with stands beside the curves: they have no curves of
their own.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curves import gain, stays
from dlr_cli.host import load_host
from entries import HERE, record
from interleaved import Ratio
from latents import learn
from pictures import curves
from pieces import Pieces, train
from sheet import Sheet

from dlr_core.assignments import merge, parse_assignment, read_toml
from dlr_core.config import resolve

SWEEP = HERE / "filter.toml"
KEPT = (16, 8, 4, 3, 2)
"""K; the first decodes all."""
NAMED = 3
Piece = dict[str, Any]


def name_of(keep: int, seed: int) -> str:
    """A piece's name."""
    return f"keep{keep}-seed{seed}"


def make(args: argparse.Namespace) -> None:
    """Train one piece and keep it."""
    host = load_host()
    values: dict[str, Any] = {}
    base = read_toml(SWEEP)["base"]
    for key, value in {**base, "seed": args.seed, "loggers": []}.items():
        merge(values, [key], value)
    merge(values, ["decoder", "model"], args.main_model)
    for text in args.set:
        merge(values, *parse_assignment(text))
    chains = values["batch"]["samples"]
    if args.keep < chains:
        merge(values, ["scorer"], "learned")
        merge(values, ["batch", "decodes"], args.keep)
    config = resolve(values, host)
    learned = learn(config, host, questions=args.questions, probes=args.probes)
    about = {"keep": args.keep, "of": chains, "seed": args.seed, "questions": args.questions}
    piece = {**about, "env": config.env, "main_model": Path(args.main_model).name, **learned}
    Pieces(args.pieces).write(name_of(args.keep, args.seed), piece)


def missing(pieces: Mapping[str, Piece], seeds: Sequence[int]) -> list[tuple[int, int]]:
    """K and seed of what is to be trained next, seed by seed, what the ratio needs first."""
    order = sorted(KEPT, key=lambda keep: keep not in (KEPT[0], NAMED))
    return [(keep, seed) for seed in seeds for keep in order if name_of(keep, seed) not in pieces]


def run(args: argparse.Namespace) -> None:
    """Train what is missing, one piece after another, then sum up."""
    store, made = Pieces(args.pieces), 0
    while (left := missing(store.read(), args.seeds)) and made < args.at_most:
        keep, seed = left[0]
        more = [part for text in args.set for part in ("--set", text)]
        train(
            "filter_cost.py",
            ["--keep", keep, "--seed", seed, "--questions", args.questions, "--probes", args.probes,
             "--main-model", args.main_model, "--pieces", args.pieces, *more],
        )  # fmt: skip
        made += 1
    show(args)


def compare(pieces: Mapping[str, Piece], seeds: Sequence[int]) -> tuple[Ratio, dict[str, Any]] | None:
    """The ratio and what it was read from; None until a seed has both sides."""
    both = [seed for seed in seeds if all(name_of(keep, seed) in pieces for keep in (KEPT[0], NAMED))]
    if not both:
        return None
    whole = [pieces[name_of(KEPT[0], seed)]["curve"] for seed in both]
    start = float(np.mean([curve[0]["accuracy"] for curve in whole]))
    target = (start + float(np.mean([curve[-1]["accuracy"] for curve in whole]))) / 2
    costs = {
        keep: {
            seed: stays(pieces[name]["curve"], target, "flops")
            for seed in seeds
            if (name := name_of(keep, seed)) in pieces
        }
        for keep in KEPT
    }
    spent = {seed: pieces[name_of(KEPT[0], seed)]["curve"][-1]["flops"] for seed in both}
    gains = [gain(costs[NAMED][seed], costs[KEPT[0]][seed], spent[seed]) for seed in both]
    detail = {
        "target": target,
        "accuracy_at_start": start,
        "tflop_to_target": {
            f"{keep} of {KEPT[0]}": [cost / 1e12 if np.isfinite(cost) else None for cost in own.values()]
            for keep, own in costs.items()
            if own
        },
        "accuracy_at_end": {
            f"{keep} of {KEPT[0]}": [pieces[name_of(keep, seed)]["curve"][-1]["accuracy"] for seed in own]
            for keep, own in costs.items()
            if own
        },
        "seeds": both,
    }
    return Ratio(float(np.median(gains)), min(gains), max(gains), len(gains)), detail


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Every K, one figure a seed."""
    costs = measured["tflop_to_target"]
    rows = [
        (
            name,
            ", ".join("never" if cost is None else f"{cost:.1f}" for cost in costs[name]),
            ", ".join(f"{100 * accuracy:.1f}" for accuracy in measured["accuracy_at_end"][name]),
        )
        for name in costs
    ]
    return Sheet(("decoded", f"TFLOP to {100 * measured['target']:.1f} %", "right % at the end"), rows)


def swept() -> dict[str, list[tuple[float, float]]]:
    """TFLOP and right % that the kept runs of the sweep ended with, by variant."""
    kept = HERE / "results" / "filter.json"
    found: dict[str, list[tuple[float, float]]] = {}
    for row in json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []:
        found.setdefault(f"sweep: {row['variant']}", []).append((row["tflop"], 100 * row["accuracy"]["trained"]))
    return found


def show(args: argparse.Namespace) -> None:
    """Print, write."""
    pieces = Pieces(args.pieces).read()
    print(f"{len(pieces)} pieces in {args.pieces}")
    for keep, seed in missing(pieces, args.seeds):
        print(f"missing: {name_of(keep, seed)}")
    found = compare(pieces, args.seeds)
    if found is None:
        print("nothing written: no seed of both sides has ended yet")
        return
    ratio, detail = found
    sheet(detail).print()
    record("filter_total_cost", ratio, detail, args.out)
    lines = {
        f"{keep} of {KEPT[0]}": [
            [(point["flops"] / 1e12, 100 * point["accuracy"]) for point in pieces[name]["curve"]]
            for seed in args.seeds
            if (name := name_of(keep, seed)) in pieces
        ]
        for keep in KEPT
    }
    title = "Accuracy against everything computed, one line a seed"
    shown = {label: own for label, own in lines.items() if own}
    marks = {"target": 100 * detail["target"]}
    curves(args.out / "filter_total_cost.png", title, "TFLOP", "right %", shown, marks, swept())
    print(f"{ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times cheaper to {detail['target']:.1%}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    parts = {
        "run": verbs.add_parser("run", help="train what is missing, then sum up"),
        "piece": verbs.add_parser("piece", help="train one run"),
        "show": verbs.add_parser("show", help="sum up what is there"),
    }
    for verb, part in parts.items():
        part.add_argument("--pieces", type=Path, default=HERE / "pieces" / "filter", help="folder of finished runs")
        if verb != "show":
            part.add_argument("--questions", type=int, default=300, help="test questions of a point of the curve")
            part.add_argument("--probes", type=int, default=12, help="points of a curve, after the first")
            part.add_argument("--main-model", default="smollm2-135m")
            part.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of all")
        if verb != "piece":
            part.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
            part.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    parts["run"].add_argument("--at-most", type=int, default=10**6, help="pieces trained before summing up")
    parts["piece"].add_argument("--keep", type=int, choices=KEPT, required=True, help="K, chains decoded of 16")
    parts["piece"].add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    {"run": run, "piece": make, "show": show}[args.verb](args)


if __name__ == "__main__":
    main()
