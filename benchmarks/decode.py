"""Completions per second of the vector environment, against Transformers' ``generate`` on the same prompts.

python benchmarks/decode.py                                  # every cell
python benchmarks/decode.py --chains 8 --prompts 200         # those cells alone
python benchmarks/decode.py --weights float16                # rounded weights; shown, not written
python benchmarks/decode.py --products bfloat16              # for a CPU with AMX; shown, not written

A turn is one question that neither side has seen, answered K times: ``reset`` prefills it, ``step`` puts K chains in
and decodes them; ``generate`` is given the same token ids, the anchor's included, in a batch of K rows. All decode
greedily, on the same threads. ``generate`` runs on the model as Transformers loads it, and once more a turn on the
environment's, whose linear layers multiply from packed weights: the second ratio is what sharing prompts gains alone. A
third ratio leaves our prefill out: a prompt that was asked before and is kept, as a run's search and replay keep
theirs, is not read again, while ``generate`` reads it every time. The end token is taken from all, so that every
completion has exactly as many tokens as the limit says. The chains are all zeros, which by contract reads as the plain
prompt with its anchor: so the completions must be the same ids, and rows that differ (near-ties) are counted. With
``--weights float16`` all have the same rounded weights, which ``generate``'s first column multiplies as float32. With
``--products bfloat16`` packed weights are in bfloat16 and that column's are not, so more rows differ.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
import torch
from dlr_envs.vector import LatentVectorEnv
from entries import HERE, record
from interleaved import Ratio, Side, alternate, ratio_of_medians
from pictures import bars
from sheet import Sheet
from transformers import GenerationConfig

from dlr_core.errors import ConfigError
from dlr_core.records import Item, Verdict

ENV = "dlr/ChainSum-v0"
NAMED = (8, 200, 8)
"""K, prompt, tokens of the cell that stands for all: the default token limit of ChainSum."""
FILLERS = (" and", " so", " a", "x", "7", ".", "!", "?")
"""Pieces of text that a question is filled up with, long ones first."""


class LongQuestions:
    """Questions whose whole prompt has an exact number of tokens; nothing is judged."""

    def __init__(self, decoder: Any, beside: int, tokens: int) -> None:
        self.decoder, self.beside, self.tokens = decoder, beside, tokens
        self._items: dict[int, Item] = {}

    def _length(self, question: str) -> int:
        return len(self.decoder.prompt_ids(question)) + self.beside

    def item(self, split: str, index: int) -> Item:
        """Question ``index``; made once, so that asking again takes no time."""
        if index not in self._items:
            self._items[index] = Item(self._text(index), "", index)
        return self._items[index]

    def _text(self, index: int) -> str:
        """A question of its own, filled up.

        Raises:
            ConfigError: the template and the anchor alone are longer.
        """
        text = str(index)
        if self._length(text) > self.tokens:
            raise ConfigError(f"a prompt of {self.tokens} tokens is too short: expected {self._length(text)} or more")
        each = self._length(text + 8 * FILLERS[0]) - self._length(text)
        text += FILLERS[0] * max(0, 8 * (self.tokens - self._length(text)) // max(each, 1) - 8)
        while (length := self._length(text)) < self.tokens:
            longer = (text + piece for piece in FILLERS)
            fits = [more for more in longer if length < self._length(more) <= self.tokens]
            if not fits:
                raise ConfigError(f"no filler reaches {self.tokens} tokens from {length}")
            text = fits[0]
        return text

    def size(self, split: str) -> int:
        """As many as anybody asks for."""
        return 10**6

    def gold_text(self, item: Item) -> str:
        """None is known."""
        return ""

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        """Nothing is right or wrong."""
        return Verdict(None, 0.0, 0.0)


@contextmanager
def endless(decoder: Any) -> Iterator[int]:
    """The decoder ends at another special token meanwhile, which it does not write; that token's id."""
    ends = decoder.end_ids
    special = [number for number in decoder.tokenizer.all_special_ids if number not in ends.tolist()]
    decoder.end_ids = torch.tensor([special[-1] if special else len(decoder.embedding_table()) - 1]).to(ends)
    try:
        yield int(decoder.end_ids[0])
    finally:
        decoder.end_ids = ends


@dataclass
class Cell:
    """K chains of one question, both ways."""

    engine: Any
    chains: int
    prompt: int
    tokens: int
    first: int
    """Number of its first question: no two cells ask the same one."""

    def __post_init__(self) -> None:
        space, decoder = self.engine.space, self.engine.decoder
        self.anchor = list(space.anchor_ids) + list(space.pending_ids)
        self.questions = LongQuestions(decoder, len(self.anchor), self.prompt)
        engine = self.engine.on(self.questions, self.tokens)
        self.env = LatentVectorEnv(self.chains, engine=engine, autoreset_mode="Disabled")
        self.actions = np.zeros((self.chains, engine.action_width), np.float32)
        self.written: dict[str, list[Any]] = {side: [] for side in ("ours", "kept", "plain", "packed")}

    @property
    def sides(self) -> list[Side]:
        """What takes turns, in the order of ``written``."""
        return [self.ours, self.kept, self.plain, self.packed]

    @property
    def name(self) -> str:
        """Of the cell."""
        return f"K={self.chains} prompt {self.prompt} tokens {self.tokens}"

    def ours(self, turn: int) -> float:
        """Seconds of a reset and a step."""
        self.questions.item("train", self.first + turn)
        began = time.perf_counter()
        self.env.reset(options={"index": [self.first + turn], "group_size": self.chains})
        self.env.step(self.actions)
        spent = time.perf_counter() - began
        done: Any = self.env.finished
        self.written["ours"].append(done.completions.ids_NL.cpu())
        return spent

    def kept(self, turn: int) -> float:
        """Seconds of the chains alone, on a prompt that is there."""
        engine = self.env.engine
        cache = engine.prefill([self.questions.item("train", self.first + turn).question])
        latents = torch.zeros(
            self.chains, engine.space.num_latents, engine.space.latent_dim, device=cache.mask_NS.device
        )
        rows = torch.zeros(self.chains, dtype=torch.long, device=cache.mask_NS.device)
        began = time.perf_counter()
        with torch.no_grad():
            done = engine.decode(engine.inject(cache, latents, rows), self.env.generators)
        spent = time.perf_counter() - began
        self.written["kept"].append(done.ids_NL.cpu())
        return spent

    def plain(self, turn: int) -> float:
        """Seconds of ``generate`` on the same token ids, by the model's own weights."""
        packed = self.engine.decoder.packed
        for layer in packed:
            layer.use(False)
        try:
            return self._generate(turn, "plain")
        finally:
            for layer in packed:
                layer.use(True)

    def packed(self, turn: int) -> float:
        """Seconds of ``generate`` on the same token ids, from the environment's packed weights."""
        return self._generate(turn, "packed")

    @torch.no_grad()
    def _generate(self, turn: int, side: str) -> float:
        decoder = self.engine.decoder
        question = self.questions.item("train", self.first + turn).question
        ids = torch.tensor([decoder.prompt_ids(question) + self.anchor] * self.chains, device=decoder.device)
        if ids.shape[1] != self.prompt:
            raise RuntimeError(f"expected a prompt of {self.prompt} tokens, got {ids.shape[1]}")
        end = int(decoder.end_ids[0])
        settings = GenerationConfig(
            do_sample=False, max_new_tokens=self.tokens, eos_token_id=[end], pad_token_id=end, disable_compile=True
        )
        began = time.perf_counter()
        out = decoder.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        spent = time.perf_counter() - began
        self.written[side].append(out[:, self.prompt :].cpu())
        return spent

    def same(self) -> float:
        """Share of the environment's completions that both times are ``generate``'s, id for id.

        Raises:
            RuntimeError: one of them has not as many tokens as it should.
        """
        equal = []
        for mine, *others in zip(*self.written.values(), strict=True):
            lengths = [ids.shape[1] for ids in (mine, *others)]
            if set(lengths) != {self.tokens}:
                raise RuntimeError(f"{self.name}: expected {self.tokens} tokens, got {', '.join(map(str, lengths))}")
            equal += torch.stack([(mine == other).all(1) for other in others]).all(0).tolist()
        return float(np.mean(equal))


def measure(cell: Cell, turns: int, patience: float) -> tuple[Ratio, dict[str, Any]]:
    """A cell's ratio, and what it is made of."""
    ours, kept, plain, packed = alternate(cell.sides, turns, patience)
    found, again, sharing = (ratio_of_medians(*pair) for pair in ((ours, plain), (kept, plain), (ours, packed)))
    return found, {
        "chains": cell.chains, "prompt": cell.prompt, "tokens": cell.tokens,
        "ratio": found.ratio, "low": found.low, "high": found.high, "n": found.n,
        "completions_per_second": cell.chains / float(np.median(ours)),
        "generate_completions_per_second": cell.chains / float(np.median(plain)),
        "ratio_kept": again.ratio, "low_kept": again.low, "high_kept": again.high, "kept_seconds": kept,
        "ratio_packed": sharing.ratio, "low_packed": sharing.low, "high_packed": sharing.high,
        "seconds": ours, "generate_seconds": plain, "packed_seconds": packed, "same_completions": cell.same(),
    }  # fmt: skip


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Every cell."""
    return Sheet(
        (
            "K",
            "prompt",
            "tokens",
            "environment, completions/s",
            "`generate`",
            "ratio",
            "95 %",
            "ratio where our prompt was kept",
            "ratio where `generate` has our packed weights",
            "n",
            "same ids",
        ),
        [
            (
                *(str(cell[key]) for key in ("chains", "prompt", "tokens")),
                *(f"{cell[key]:.2f}" for key in ("completions_per_second", "generate_completions_per_second", "ratio")),
                f"{cell['low']:.2f} … {cell['high']:.2f}",
                f"{cell['ratio_kept']:.2f} ({cell['low_kept']:.2f} … {cell['high_kept']:.2f})",
                f"{cell['ratio_packed']:.2f} ({cell['low_packed']:.2f} … {cell['high_packed']:.2f})",
                str(cell["n"]),
                f"{cell['same_completions']:.0%}",
            )
            for cell in measured["cells"]
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, nargs="+", default=[1, 8, 64], help="K")
    parser.add_argument("--prompts", type=int, nargs="+", default=[50, 200, 1000], help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 64], help="tokens of a completion")
    parser.add_argument("--repeats", type=int, default=7, help="turns of a cell")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after which a cell begins no more turns")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--products", choices=("float32", "bfloat16"), default="float32", help="of our packed weights")
    parser.add_argument("--weights", choices=("full", "float16"), default="full", help="of the main model")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)
    decoder = {"name": "hf", "model": args.main_model, "products": args.products, "weights": args.weights}
    by_default = (args.products, args.weights) == ("float32", "full")
    engine = gymnasium.make_vec(ENV, num_envs=1, decoder=decoder).unwrapped.engine  # type: ignore[attr-defined]
    sizes = [(k, p, length) for p in args.prompts for k in args.chains for length in args.tokens]
    sizes.sort(key=lambda size: (size != NAMED, size[0] * size[1]))
    rows: list[dict[str, Any]] = []
    named: Ratio | None = None
    with endless(engine.decoder):
        warm = Cell(engine, *min(sizes, key=lambda size: size[0] * size[1]), 0)
        alternate(warm.sides, 1)
        for number, size in enumerate(sizes, 1):
            found, row = measure(Cell(engine, *size, 50 * number), args.repeats, args.patience)
            named = found if size == NAMED and by_default else named
            rows.append(row)
            if named is not None:  # after every cell, so that an interrupted run leaves what it has measured
                record("decode_k8_p200", named, {"main_model": Path(args.main_model).name, "cells": rows}, args.out)
    sheet({"cells": rows}).print()
    if named is None:
        print(f"nothing written: K={NAMED[0]} prompt {NAMED[1]} tokens {NAMED[2]} was not measured by default")
        return
    shown = {f"K={r['chains']}, {r['prompt']} → {r['tokens']}": (r["ratio"], r["low"], r["high"]) for r in rows}
    title = "Completions per second, environment ÷ generate"
    bars(args.out / "decode_k8_p200.png", title, "times as many", shown, {"alike": 1.0, "goal at K=8, 200": 5.0})


if __name__ == "__main__":
    main()
