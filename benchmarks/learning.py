"""Learning: ours against TRL's GRPOTrainer, and PEFT's prompt and prefix tuning beside them: equal wall time, equal
FLOPs, time to a fixed accuracy, and what is left of five other tasks.

python benchmarks/learning.py run                        # trains every piece that is missing, then sums up
python benchmarks/learning.py run --at-most 2            # two pieces now; the same command again goes on
python benchmarks/learning.py run --at-once 2            # two pieces at a time
python benchmarks/learning.py piece grpo-lora --rate 1e-3 --seed 0 --minutes 10    # one alone
python benchmarks/learning.py show                       # sums up what is there
python benchmarks/learning.py show --pieces OTHER --only grpo-full=3e-6 grpo-lora=1e-4   # rates that were chosen before

Ours is the default of ``dlr run``. PEFT's two are taught gold answers, which neither ours nor TRL is, as ``dlr
baseline`` teaches them: as many virtual tokens as ours has latents, our anchor, as many answers a step as our rollout
has completions. TRL fine-tunes all weights, or LoRA's, from the text that
our anchor is made of (its best hand-written prompt), with our batch (4 questions, 8 completions each), token limit,
training questions and reward. Learning rates of TRL's and PEFT's are swept: every rate of a setting trains once under
the first seed, and the one that ends best on *validation* questions trains under the other seeds too. Ours is not
swept; its default tells its search that answers may begin with a minus, which ``--set 'replay.openings=[""]'`` takes
from it (with another ``--pieces`` folder). Asking the test questions on the way is on nobody's clock, nor are the other
tasks before and after, nor is loading. Where other programs share the machine, ``--set clock=cpu`` counts CPU time;
with OMP_NUM_THREADS=1 and ``--at-once 2`` two pieces run side by side.

The target is the accuracy that the better of TRL's settings ends with, mean over seeds. A seed's time to it is the
first point of its curve from which on no point is below. The ratio is TRL's training time over ours, median over seeds;
its low and high are the worst and the best seed; a seed that never stays above the target counts as 0.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import other_tasks
from curves import accuracy_at, gain, stays
from dlr_cli.host import load_host
from entries import HERE, record
from interleaved import Ratio
from pictures import curves
from pieces import Pieces, train
from sheet import Sheet

from dlr_core.assignments import merge, parse_assignment
from dlr_core.config import RunConfig, resolve
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost

OURS = "dlr"
RATES = {"grpo-full": (1e-6, 3e-6, 1e-5, 3e-5), "grpo-lora": (3e-5, 1e-4, 3e-4, 1e-3)}
"""TRL's. No higher ones: all weights at 1e-4 and LoRA at 1e-3 end at 2 and 5 % right, below where they began."""
TAUGHT = {"peft-prefix": (3e-3, 1e-2, 3e-2, 1e-1), "peft-prompt": (1e-2, 3e-2, 1e-1, 3e-1)}
"""PEFT's, which see gold answers."""
SWEPT: Mapping[str, Sequence[float]] = {**RATES, **TAUGHT}
OTHERS = (
    f"Other tasks, {other_tasks.COUNT // len(other_tasks.OTHER_TASKS)} test questions each, "
    f"{other_tasks.MAX_NEW_TOKENS} tokens at most, partial credit counted: right before training under a plain prompt, "
    "and what is gained on that; intervals draw questions. Full fine-tuning cannot be switched off."
)
Piece = dict[str, Any]


def name_of(method: str, rate: float | None, seed: int, minutes: float) -> str:
    """A piece's name."""
    return "-".join([method, *([f"{rate:g}"] if rate else []), f"seed{seed}", f"{minutes:g}min"])


def one_rate(text: str) -> tuple[str, float]:
    """``METHOD=RATE`` (ArgumentTypeError)."""
    method, _, rate = text.partition("=")
    with suppress(ValueError):
        if method in SWEPT:
            return method, float(rate)
    raise argparse.ArgumentTypeError(f"expected METHOD=RATE, of {', '.join(SWEPT)}; got {text!r}")


def settings(args: argparse.Namespace, host: PluginHost) -> RunConfig:
    """Those of a default run, for so many minutes."""
    values: dict[str, Any] = {"seed": args.seed, "steps": None, "minutes": args.minutes, "loggers": []}
    merge(values, ["decoder", "model"], args.main_model)
    for text in args.set:
        merge(values, *parse_assignment(text))
    return resolve(values, host)


def make(args: argparse.Namespace) -> None:
    """Train one piece and keep it."""
    host = load_host()
    config = settings(args, host)
    other_tasks.check(config.task.name or host.create("env", config.env).task)
    maker, _, setting = args.method.partition("-")
    asked = {"questions": args.questions, "probes": args.probes}
    if maker == OURS:
        from latents import learn

        learned = learn(config, host, **asked, others=True)
    elif maker == "peft":
        from soft_prompts import learn as learn_soft_prompt

        learned = learn_soft_prompt(config, host, setting, args.rate, **asked)
    else:
        from grpo import learn as learn_grpo

        with tempfile.TemporaryDirectory() as folder:
            learned = learn_grpo(config, host, setting, args.rate, Path(folder), **asked)
    about = {"method": args.method, "rate": args.rate, "seed": args.seed, "minutes": args.minutes}
    model = Path(args.main_model).name
    piece = {**about, "env": config.env, "main_model": model, "questions": args.questions, **learned}
    Pieces(args.pieces).write(name_of(args.method, args.rate, args.seed, args.minutes), piece)


def of_as_many(pieces: Mapping[str, Piece], questions: int) -> None:
    """Refuse pieces that were asked another number of questions (ConfigError)."""
    strange = {piece["questions"] for piece in pieces.values()} - {questions}
    if strange:
        raise ConfigError(
            f"pieces of {min(strange)} questions are there: --questions {min(strange)}, or other --pieces"
        )


def chosen_rate(
    pieces: Mapping[str, Piece], method: str, rates: Sequence[float], seed: int, minutes: float
) -> float | None:
    """The rate that ended best on validation questions; None until all have been tried."""
    tried = [pieces.get(name_of(method, rate, seed, minutes)) for rate in rates]
    done = [piece for piece in tried if piece is not None]
    if len(done) < len(tried):
        return None
    return float(max(done, key=lambda piece: piece["validation"])["rate"])


def missing(
    pieces: Mapping[str, Piece], seeds: Sequence[int], minutes: float, swept: Mapping[str, Sequence[float]] = SWEPT
) -> list[tuple[str, float | None, int]]:
    """Method, rate and seed of what is to be trained next: the sweep, our seeds, then the chosen rates' other seeds."""
    wanted: list[tuple[str, float | None, int]] = [(OURS, None, seeds[0])]
    wanted += [(method, rate, seeds[0]) for method, rates in swept.items() for rate in rates]
    wanted += [(OURS, None, seed) for seed in seeds[1:]]
    for method, rates in swept.items():
        rate = chosen_rate(pieces, method, rates, seeds[0], minutes)
        if rate is not None:
            wanted += [(method, rate, seed) for seed in seeds[1:]]
    return [each for each in wanted if name_of(*each, minutes) not in pieces]


def run(args: argparse.Namespace) -> None:
    """Train what is missing, then sum up."""
    store = Pieces(args.pieces)
    store.of_one_machine(here=True)
    if missing(store.read(), args.seeds, args.minutes, args.swept):
        of_as_many(store.read(), args.questions)
    made, running = 0, dict[Future[None], str]()
    with ThreadPoolExecutor(args.at_once) as lanes:
        while True:
            left = [each for each in missing(store.read(), args.seeds, args.minutes, args.swept)
                    if name_of(*each, args.minutes) not in running.values()]  # fmt: skip
            for each in left[: min(args.at_once - len(running), args.at_most - made)]:
                running[lanes.submit(train_piece, args, *each)] = name_of(*each, args.minutes)
                made += 1
            if not running:
                break
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                del running[ended]
                ended.result()
    show(args)


def train_piece(args: argparse.Namespace, method: str, rate: float | None, seed: int) -> None:
    """One piece, in a process of its own."""
    more = [part for text in args.set for part in ("--set", text)]
    if rate is not None:
        more += ["--rate", f"{rate:g}"]
    train(
        "learning.py",
        [method, "--seed", seed, "--minutes", args.minutes, "--questions", args.questions, "--probes", args.probes,
         "--main-model", args.main_model, "--pieces", args.pieces, *more],
    )  # fmt: skip


def compare(
    pieces: Mapping[str, Piece], seeds: Sequence[int], minutes: float, swept: Mapping[str, Sequence[float]] = SWEPT
) -> tuple[Ratio, dict[str, Any]] | None:
    """The ratio and what it was read from; None until every method has a finished seed."""
    ours = [p for seed in seeds if (p := pieces.get(name_of(OURS, None, seed, minutes)))]
    others = {m: chosen for m, rates in swept.items() if (chosen := of_chosen(pieces, m, rates, seeds, minutes))}
    theirs = {method: others[method] for method in RATES if method in others}
    if not ours or len(theirs) < len(RATES):
        return None
    everyone = {OURS: ours, **others}
    ends = {name: float(np.mean([p["curve"][-1]["accuracy"] for p in own])) for name, own in everyone.items()}
    better = max(theirs, key=lambda method: ends[method])
    target = ends[better]
    wall = float(np.mean([p["curve"][-1]["seconds"] for p in theirs[better]]))
    times = [stays(p["curve"], target, "seconds") for p in ours]
    gains = [gain(seconds, wall, wall) for seconds in times]
    flops = min(float(np.mean([p["curve"][-1]["flops"] for p in own])) for own in everyone.values())
    reached = [stays(p["curve"], target, "completions") for p in ours]
    detail = {
        "minutes": minutes,
        "seeds": {name: [p["seed"] for p in own] for name, own in everyone.items()},
        "gold": {name: own[0]["gold"] for name, own in everyone.items()},
        "rates": {name: own[0]["rate"] for name, own in others.items()},
        "swept": {m: {f"{p['rate']:g}": p["validation"] for p in of(pieces, m, seeds[0], minutes)} for m in others},
        "questions": ours[0]["questions"],
        "accuracy_at_start": {name: own[0]["curve"][0]["accuracy"] for name, own in everyone.items()},
        "accuracy_at_equal_time": ends,
        "equal_tflop": flops / 1e12,
        "accuracy_at_equal_flops": {
            name: float(np.mean([accuracy_at(p["curve"], "flops", flops) for p in own]))
            for name, own in everyone.items()
        },
        "tflop": {n: float(np.mean([p["curve"][-1]["flops"] for p in own])) / 1e12 for n, own in everyone.items()},
        "steps": {n: float(np.mean([p["curve"][-1]["steps"] for p in own])) for n, own in everyone.items()},
        "better": better,
        "target": target,
        "their_seconds": wall,
        "our_seconds_to_target": [_finite(seconds) for seconds in times],
        "their_seconds_to_target": [_finite(stays(p["curve"], target, "seconds")) for p in theirs[better]],
        "their_completions": float(np.mean([p["curve"][-1]["completions"] for p in theirs[better]])),
        "our_completions_to_target": [_finite(count) for count in reached],
        "other_tasks": {name: other_tasks.kept(asked) for name, own in everyone.items() if (asked := asked_of(own))},
        "other_tasks_seeds": {name: [p["seed"] for p in own if "others" in p] for name, own in everyone.items()},
    }
    return Ratio(float(np.median(gains)), min(gains), max(gains), len(gains)), detail


def asked_of(pieces: Sequence[Piece]) -> list[other_tasks.Asked]:
    """What pieces were asked of other tasks; those made before that was asked have nothing."""
    return [piece["others"] for piece in pieces if "others" in piece]


def of_chosen(
    pieces: Mapping[str, Piece], method: str, rates: Sequence[float], seeds: Sequence[int], minutes: float
) -> list[Piece]:
    """The pieces of one method at its chosen rate; none until that is known."""
    rate = chosen_rate(pieces, method, rates, seeds[0], minutes)
    return [p for seed in seeds if rate and (p := pieces.get(name_of(method, rate, seed, minutes)))]


def _finite(spent: float) -> float | None:
    return spent if np.isfinite(spent) else None


def ends(pieces: Mapping[str, Piece]) -> Sheet:
    """What every piece came to."""
    rows = []
    for name, piece in pieces.items():
        first, last = piece["curve"][0], piece["curve"][-1]
        counts = (str(last["steps"]), f"{last['flops'] / 1e12:.1f}", str(last["completions"]))
        shares = (first["accuracy"], last["accuracy"], piece["validation"])
        rows.append((name, *counts, *(f"{100 * share:.1f}" for share in shares)))
    return Sheet(("piece", "steps", "TFLOP", "completions", "start %", "end %", "validation %"), rows)


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Every method, means over its seeds."""
    rows = []
    for name, end in measured["accuracy_at_equal_time"].items():
        rate = measured["rates"].get(name)
        rows.append(
            (
                name if rate is None else f"{name}, rate {rate:g}",
                "yes" if measured["gold"][name] else "no",
                ", ".join(map(str, measured["seeds"][name])),
                f"{measured['steps'][name]:.0f}",
                f"{measured['tflop'][name]:.1f}",
                f"{100 * measured['accuracy_at_start'][name]:.1f}",
                f"{100 * end:.1f}",
                f"{100 * measured['accuracy_at_equal_flops'][name]:.1f}",
            )
        )
    minutes, tflop = f"{measured['minutes']:g}", f"{measured['equal_tflop']:.1f}"
    head = ("method", "gold seen", "seeds", "steps", "TFLOP", "right % at start")
    return Sheet((*head, f"after {minutes} min", f"at {tflop} TFLOP"), rows)


def more(measured: Mapping[str, Any]) -> Sheet:
    """What is left of other tasks, at the chosen rates."""
    seeds = measured["other_tasks_seeds"]
    named = {f"{name}, seeds {', '.join(map(str, seeds[name]))}": own for name, own in measured["other_tasks"].items()}
    return other_tasks.sheet(named)


def remark(measured: Mapping[str, Any]) -> str:
    """What the ratio was read from, and whether the sweep of rates went far enough."""
    reached = [
        "never" if spent is None else f"{spent / 60:.1f} min and {count:.0f} completions"
        for spent, count in zip(measured["our_seconds_to_target"], measured["our_completions_to_target"], strict=True)
    ]
    own = ["never" if t is None else f"{t / 60:.1f} min" for t in measured["their_seconds_to_target"]]
    edges = [name for name, rate in measured["rates"].items() if rate in (SWEPT[name][0], SWEPT[name][-1])]
    better, minutes, target = measured["better"], measured["their_seconds"] / 60, measured["target"]
    completions = measured["their_completions"]
    return " ".join(
        [
            f"{better} ends with {target:.1%} after {minutes:.1f} min and {completions:.0f} completions,",
            f"and stays above that itself after {', '.join(own)};",
            f"ours stays above it after {', '.join(reached)}.",
            *(f"{name}: the best rate is at the edge of the sweep." for name in edges),
            *([OTHERS] if measured["other_tasks"] else []),
        ]
    )


def of(pieces: Mapping[str, Piece], method: str, seed: int, minutes: float) -> list[Piece]:
    """The swept pieces of one method."""
    return [pieces[name] for rate in SWEPT[method] if (name := name_of(method, rate, seed, minutes)) in pieces]


def show(args: argparse.Namespace) -> None:
    """Print, write."""
    store = Pieces(args.pieces)
    store.of_one_machine(here=False)
    pieces = store.read()
    ends(pieces).print()
    for method, rate, seed in missing(pieces, args.seeds, args.minutes, args.swept):
        print(f"missing: {name_of(method, rate, seed, args.minutes)}")
    found = compare(pieces, args.seeds, args.minutes, args.swept)
    if found is None:
        print("nothing written: no seed of every method has ended yet")
        return
    ratio, detail = found
    record("learn_vs_grpo", ratio, detail, args.out)
    sheet(detail).print()
    more(detail).print()
    rates = {OURS: None, **detail["rates"]}
    lines = {
        name if rate is None else f"{name} {rate:g}": [
            [(point["seconds"] / 60, 100 * point["accuracy"]) for point in pieces[own]["curve"]]
            for seed in args.seeds
            if (own := name_of(name, rate, seed, args.minutes)) in pieces
        ]
        for name, rate in rates.items()
    }
    title = "Accuracy on test questions, one line a seed"
    marks = {"TRL's better end": 100 * detail["target"]}
    curves(args.out / "learn_vs_grpo.png", title, "training minutes", "right %", lines, marks)
    print(remark(detail))


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
        part.add_argument("--minutes", type=float, default=10.0, help="of training")
        part.add_argument("--pieces", type=Path, default=HERE / "pieces" / "learning", help="folder of finished runs")
        if verb != "show":
            part.add_argument("--questions", type=int, default=300, help="test questions of a point of the curve")
            part.add_argument("--probes", type=int, default=10, help="points of a curve, after the first")
            part.add_argument("--main-model", default="smollm2-135m")
            part.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of all")
        if verb != "piece":
            part.add_argument("--only", type=one_rate, nargs="+", metavar="METHOD=RATE", help="instead of the sweep")
            part.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
            part.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    parts["run"].add_argument("--at-most", type=int, default=10**6, help="pieces trained before summing up")
    parts["run"].add_argument("--at-once", type=int, default=1, help="pieces trained side by side")
    parts["piece"].add_argument("method", choices=[OURS, *SWEPT])
    parts["piece"].add_argument("--rate", type=float, help="learning rate, of TRL's and PEFT's")
    parts["piece"].add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.verb == "piece" and (args.rate is None) == (args.method != OURS):
        parser.error(f"piece: --rate goes with {', '.join(SWEPT)}, and must be given there")
    if args.verb != "piece":
        args.swept = SWEPT if args.only is None else {method: (rate,) for method, rate in args.only}
    {"run": run, "piece": make, "show": show}[args.verb](args)


if __name__ == "__main__":
    main()
