"""How near a decoding step of 64 rows comes to what the machine can do.

python benchmarks/roofline.py

The roof is measured on this machine, at the shapes that decoding has: every weight matrix of the model multiplied with
64 rows, one after another, so that weights come from memory as they do in a step, by PyTorch's own product and from
packed weights, whichever is faster; and the step's keys and values read once, at the speed of a sum over a block of
memory far larger than the caches. The achieved share is the roof's seconds over a step's, measured in turns. Norms,
rotations, softmax and drawing tokens are no part of the roof.

Beside it stands the share of the speed of one large square product, which no step with 64 rows can reach. The rows are
as an environment decodes them: what all prompts begin with is held, and counted, once.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import torch
from decode import ENV, endless
from dlr_plugins.decoders.spreading import real_weight
from entries import HERE, record
from interleaved import alternate, median_of
from machine import fastest, memory_speed, product_speed
from pictures import bars
from sheet import Sheet, spread

from dlr_core.questions import distinct_items

SQUARE = 1024


def matrices(decoder: Any) -> list[torch.Tensor]:
    """Every weight matrix that a token is multiplied with, in the order of a step, wherever it is kept."""
    layers = {name: part for name, part in decoder.body.named_modules() if isinstance(part, torch.nn.Linear)}
    body = [real_weight(decoder.body, f"{name}.weight", part.weight) for name, part in layers.items()]
    return [*body, decoder.model.get_output_embeddings().weight]


class Roof:
    """The machine's speeds at a decoding step's shapes."""

    def __init__(self, decoder: Any, rows: int, positions: float, once: int = 0) -> None:
        self.weights = matrices(decoder)
        self.packed = list(dict.fromkeys(layer.together for layer in decoder.packed))
        widths = {weight.shape[1] for weight in self.weights}
        self.inputs = {width: torch.randn(rows, width).to(self.weights[0]) for width in widths}
        each = 2 * sum(heads * width for heads, width in decoder.kv_sizes) * decoder.embedding_table().element_size()
        self.cache_bytes = (rows * positions + once) * each
        """Of keys and values that a step reads: in every layer ``positions`` of each row, and ``once`` for all."""
        self.flops = 2 * rows * sum(weight.numel() for weight in self.weights)

    @torch.no_grad()
    def products(self) -> float:
        """Seconds of a step's matrix products, the fastest of three goes and of two libraries."""
        ways = [self._plain, self._from_packed] if self.packed else [self._plain]
        return min(fastest(way) for way in ways)

    def _plain(self) -> None:
        for weight in self.weights:
            torch.nn.functional.linear(self.inputs[weight.shape[1]], weight)

    def _from_packed(self) -> None:
        for layers in self.packed:
            layers.product(self.inputs[layers.layers[0].in_features])

    def reads(self) -> float:
        """Seconds that a step's keys and values take to be read."""
        return self.cache_bytes / memory_speed()


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Seconds and speeds: median (least … most) where there are several."""
    return Sheet(
        ("of a step", "measured"),
        [
            ("seconds", spread(measured["step_seconds"], 3)),
            ("its roof, seconds", spread(measured["roof_seconds"], 3)),
            ("GFLOP", f"{measured['gflop_per_step']:.1f}"),
            ("GFLOP/s", f"{measured['gflop_per_second']:.0f}"),
            (f"a {SQUARE}² product's GFLOP/s", f"{measured['square_gflop_per_second']:.0f}"),
            ("MB of keys and values", f"{measured['cache_mb_per_step']:.0f}"),
            ("memory, GB/s", f"{measured['memory_gb_per_second']:.1f}"),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16, help="decoding steps of a turn")
    parser.add_argument("--repeats", type=int, default=9, help="turns")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)
    engine = gymnasium.make_vec(ENV, num_envs=1, decoder=args.main_model).unwrapped.engine  # type: ignore[attr-defined]
    decoder = engine.decoder
    items = distinct_items(engine.task, "train", args.rows)
    with torch.no_grad(), endless(decoder):
        prompts = engine.prefill([item.question for item in items])
        plain = torch.zeros(prompts.rows, engine.space.num_latents, engine.space.latent_dim, device=decoder.device)
        cache = engine.inject(prompts, plain)
        once = cache.trunk.fixed if cache.trunk else 0
        roof = Roof(decoder, cache.rows, cache.mask_NS.shape[1] - once + (args.tokens + 1) / 2, once)

        def floor(turn: int) -> float:
            return roof.products() + roof.reads()

        def step(turn: int) -> float:
            began = time.perf_counter()
            done = decoder.decode(cache, args.tokens)
            spent = time.perf_counter() - began
            if done.ids_NL.shape[1] != args.tokens:
                raise RuntimeError(f"expected {args.tokens} tokens, got {done.ids_NL.shape[1]}")
            return spent / args.tokens

        alternate([floor, step], 1)
        lowest, taken = alternate([floor, step], args.repeats)
        square, memory = product_speed(SQUARE), memory_speed()
    found = median_of([best / spent for best, spent in zip(lowest, taken, strict=True)])
    step_seconds = sorted(taken)[len(taken) // 2]
    measured = {
        "main_model": Path(args.main_model).name,
        "rows": cache.rows,
        "step_seconds": taken,
        "roof_seconds": lowest,
        "gflop_per_step": roof.flops / 1e9,
        "gflop_per_second": roof.flops / step_seconds / 1e9,
        "square_gflop_per_second": square / 1e9,
        "share_of_square": roof.flops / step_seconds / square,
        "memory_gb_per_second": memory / 1e9,
        "cache_mb_per_step": roof.cache_bytes / 1e6,
    }
    record("decode_roofline_b64", found, measured, args.out)
    sheet(measured).print()
    print(f"{found.ratio:.0%} of the roof [{found.low:.0%}, {found.high:.0%}], {found.n} turns")
    shown = {
        "of the roof at its shapes": (found.ratio, found.low, found.high),
        f"of a {SQUARE}² product's speed": (measured["share_of_square"],) * 3,
    }
    title = f"A decoding step of {cache.rows} rows"
    bars(args.out / "decode_roofline_b64.png", title, "share achieved", shown, {"goal": 0.7})


if __name__ == "__main__":
    main()
