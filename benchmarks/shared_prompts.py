"""Decoding and scoring chains that share one copy of their prompt, against a copy for every chain.

python benchmarks/shared_prompts.py --json shared_prompts.json

One process, one loaded model, the same prompts and latents; the sides take turns. ``copies`` is what models fall back
to whose attention cannot be replaced: Transformers' own cache, repeated for every chain, padded rows, all rows' logits,
and PyTorch's own products. ``shared`` holds each prompt once and feeds no padding, still with PyTorch's products;
``default`` has packed weights too. ``other way back`` is the default with gradients multiplied by the other library:
by oneDNN where PyTorch's own product is taken to be the faster one, and the other way round. ``one batch`` (with
several threads only) is the default without giving each thread a part of the rows.

Every question has K chains. Decoded: greedy completions of a fixed number of tokens, none ends before. Scored:
log-probabilities of completions of different lengths and their gradient in the latents; tokens of the completions
count, padding does not. Both begin with putting the latents into the prompts.

--clock cpu reads the process's CPU time instead of the wall clock, for a machine with other things to do; it wants one
thread (OMP_NUM_THREADS=1).
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dlr_plugins.decoders import abreast, packed_linear
from interleaved import ratio_of_medians
from machine import machine
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dlr_core import PluginHost

ANSWERS = [" 48", " -7", " 1234", " 5", " 19", " 100", " 3", " 71"]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def question(decoder: Any, number: int, length: int) -> str:
    """A sum, with as many words before it as make ``length`` tokens."""
    end = f" State the final answer to the following arithmetic problem: {number} + {3 * number} ="
    words = max(0, length - len(decoder.encode(end)))
    return (" one" * words + end).strip()


class Bench:
    """One length of prompt: what a turn of each side does."""

    def __init__(self, decoder: Any, space: Any, length: int, questions: int, chains: int, tokens: int) -> None:
        self.decoder, self.space, self.tokens = decoder, space, tokens
        texts = [question(decoder, 11 + number, length) for number in range(questions)]
        self.cache = decoder.prefill(texts, space.anchor_ids, space.pending_ids, space.num_latents)
        self.rows = torch.arange(questions, device=decoder.device).repeat_interleave(chains)
        shape = (len(self.rows), space.num_latents, space.latent_dim)
        self.latents = (0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(decoder.device)
        answers = [ANSWERS[number % len(ANSWERS)] for number in range(len(self.rows))]
        self.ids, self.mask = decoder.encode_targets(answers)

    def ready(self, latents: torch.Tensor) -> Any:
        """The chains' prompts."""
        shares = self.decoder.shares_prompts
        return self.space.inject((self.cache.share if shares else self.cache.select)(self.rows), latents)

    @torch.no_grad()
    def decode(self) -> Any:
        """Greedy completions; returns their ids."""
        ends, self.decoder.end_ids = self.decoder.end_ids, torch.tensor([-1], device=self.decoder.device)
        try:
            return self.decoder.decode(self.ready(self.latents), self.tokens).ids_NL
        finally:
            self.decoder.end_ids = ends

    def score(self) -> Any:
        """Log-probabilities and gradient; returns the former."""
        latents = self.latents.clone().requires_grad_()
        log_prob = self.decoder.log_prob(self.ready(latents), self.ids, self.mask)
        log_prob.sum().backward()
        return log_prob.detach()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[21, 200, 1000], help="tokens of a question")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--chains", type=int, default=8, help="of each question")
    parser.add_argument("--tokens", type=int, default=8, help="of a completion")
    parser.add_argument("--repetitions", type=int, default=7, help="timed turns of each side, after one to warm up")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()

    host, clock = PluginHost.from_entry_points(), CLOCKS[args.clock]
    decoder = host.create("decoder", "hf", {"model": args.main_model})
    if not decoder.shares_prompts:
        sys.exit(f"error: {args.main_model} cannot share prompts")
    space = host.create("space", "kv", {"chart": "random"}, decoder=decoder)
    least = abreast.LEAST_ROWS
    back = packed_linear.mkl_is_faster()
    sides = {
        "copies": (False, False, back, least),
        "shared": (True, False, back, least),
        "default": (True, True, back, least),
        "other way back": (True, True, not back, least),
    }
    if torch.get_num_threads() > 1 and decoder.device.type == "cpu":
        sides["one batch"] = (True, True, back, 10**9)
    console, results = Console(), []
    table = Table("prompt", "work", "side", "per second", "ratio", "95 %", "largest difference")
    with Progress(console=console) as progress:
        work = progress.add_task("measuring", total=len(args.prompts) * 2 * len(sides) * (1 + args.repetitions))
        for length in args.prompts:
            bench = Bench(decoder, space, length, args.questions, args.chains, args.tokens)
            counts = {"decode": len(bench.rows), "score": int(bench.mask.sum())}
            for name, count in counts.items():
                seconds: dict[str, list[float]] = {side: [] for side in sides}
                made: dict[str, Any] = {}
                for turn in range(1 + args.repetitions):
                    for side in list(sides)[:: 1 if turn % 2 else -1]:  # neither is always the first
                        decoder.shares_prompts, packs, mkl, abreast.LEAST_ROWS = sides[side]
                        packed_linear.mkl_is_faster = lambda mkl=mkl: mkl
                        for layer in decoder.packed:
                            layer.use(packs)
                        start = clock()
                        made[side] = getattr(bench, name)()
                        if turn:
                            seconds[side].append(clock() - start)
                        progress.advance(work)
                for side, spent in seconds.items():
                    found = ratio_of_medians(spent, seconds["copies"])
                    ratio, low, high = found.ratio, found.low, found.high
                    off = float((made[side] - made["copies"]).abs().float().max()) if name == "score" else float(
                        (made[side] != made["copies"]).any(1).float().mean()
                    )  # fmt: skip
                    rate = count / statistics.median(spent)
                    table.add_row(
                        str(length), name, side, f"{rate:.2f}", f"{ratio:.2f}", f"{low:.2f} … {high:.2f}", f"{off:.2g}"
                    )
                    results.append(
                        {
                            "name": f"{name}_{side.replace(' ', '_')}_k{args.chains}_p{length}",
                            "ratio": ratio, "low": low, "high": high, "n": args.repetitions,
                            "per_second": rate, "seconds": spent, "difference": off, "clock": args.clock,
                            "command": shlex.join(["python", "benchmarks/shared_prompts.py", *sys.argv[1:]]),
                            "machine": machine(),
                        }
                    )  # fmt: skip
                if args.json:  # after every part, so that an interrupted run leaves what it has measured
                    args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console.print(table)
    console.print("completions per second, completion tokens per second; differences: share of completions, nats")


if __name__ == "__main__":
    main()
