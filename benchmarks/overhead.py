"""The share of an environment's ``step`` that is not the main model.

python benchmarks/overhead.py

The environment of a default run: 32 sub-environments in groups of 8, every step decodes 32 chains and, as ended
episodes restart in the same step, prefills the next questions. The model's share is the time inside its forward passes,
the strict reading: drawing tokens, turning them to text, copying caches, judging, rewards and infos are all overhead.
The share inside the decoder's own methods, token choice and text included, is given beside it.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
from decode import ENV
from entries import HERE, record
from interleaved import median_of
from pictures import bars
from sheet import Sheet, spread

METHODS = ("prefill", "decode", "extend", "grow")


class Stopwatch:
    """Seconds inside the outermost of nested calls."""

    def __init__(self) -> None:
        self.seconds, self._depth, self._began = 0.0, 0, 0.0

    def enter(self, *_: Any) -> None:
        """A call begins."""
        if not self._depth:
            self._began = time.perf_counter()
        self._depth += 1

    def leave(self, *_: Any) -> None:
        """It has ended, in whatever way."""
        self._depth -= 1
        if not self._depth:
            self.seconds += time.perf_counter() - self._began

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, on the watch."""

        @wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter()
            try:
                return work(*args, **kwargs)
            finally:
                self.leave()

        return timed


def watch(decoder: Any) -> tuple[Stopwatch, Stopwatch]:
    """Stopwatches of the model's forward passes and of the decoder's methods."""
    forward, calls = Stopwatch(), Stopwatch()
    for module in {decoder.model, decoder.body}:
        module.register_forward_pre_hook(forward.enter)
        module.register_forward_hook(forward.leave, always_call=True)
    for name in METHODS:
        setattr(decoder, name, calls.around(getattr(decoder, name)))
    return forward, calls


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Seconds and overheads, median (least … most)."""
    outside = {key: [100 * (1 - share) for share in measured[f"{key}_share"]] for key in ("forward", "decoder")}
    return Sheet(
        ("of a step", "measured"),
        [
            ("seconds", spread(measured["step_seconds"])),
            ("% outside the model's forward passes", spread(outside["forward"], 1)),
            ("% outside the decoder's methods", spread(outside["decoder"], 1)),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--group", type=int, default=8, help="sub-environments on one question")
    parser.add_argument("--repeats", type=int, default=20, help="steps")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)
    env: Any = gymnasium.make_vec(ENV, num_envs=args.envs, decoder=args.main_model)
    forward, calls = watch(env.unwrapped.engine.decoder)
    env.reset(seed=0, options={"group_size": args.group})
    rng = np.random.default_rng(0)
    shares, inside, seconds = [], [], []
    for number in range(args.repeats + 2):
        actions = rng.uniform(-0.3, 0.3, env.action_space.shape).astype(np.float32)
        forward.seconds = calls.seconds = 0.0
        began = time.perf_counter()
        env.step(actions)
        spent = time.perf_counter() - began
        if not forward.seconds:
            raise RuntimeError("no forward pass of the main model was seen: nothing to compare with")
        if number >= 2:  # the first steps warm up
            shares.append(forward.seconds / spent)
            inside.append(calls.seconds / spent)
            seconds.append(spent)
    found, decoding = median_of(shares), median_of(inside)
    measured = {
        "main_model": Path(args.main_model).name,
        "step_seconds": seconds,
        "forward_share": shares,
        "decoder_share": inside,
        "overhead": 1 - found.ratio,
        "overhead_outside_decoder": 1 - decoding.ratio,
    }
    record("env_overhead", found, measured, args.out)
    sheet(measured).print()
    shown = {
        "forward passes": (found.ratio, found.low, found.high),
        "decoder's methods": (decoding.ratio, decoding.low, decoding.high),
    }
    bars(args.out / "env_overhead.png", "Share of an environment's step", "share of seconds", shown, {"goal": 0.97})


if __name__ == "__main__":
    main()
