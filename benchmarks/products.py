"""How fast packed weights are multiplied here: whether decoder.weights=float16 and decoder.products=bfloat16 pay.

OMP_NUM_THREADS=1 python benchmarks/products.py
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python benchmarks/products.py   # as if the CPU had no AMX

Products of so many rows with 40 matrices of 1536 × 576, as large as the default model's widest: together they are
larger than a cache, as a model's are. float32 and bfloat16 are oneDNN's, and rows are rounded to bfloat16 and results
back to float32, as in a pass; float16 is FBGEMM's, which rounds neither. All take turns, and the fastest of each
counts. What there is not on a machine is left out. Prints Markdown.
"""

import argparse
from collections.abc import Sequence

import torch
from dlr_plugins.decoders.orders import Ordered, ordered
from dlr_plugins.decoders.products import multiplies_bfloat16, multiplies_float16
from interleaved import Side, alternate, timed
from sheet import Sheet

ROWS = (8, 64, 512)
SHAPE, MATRICES = (1536, 576), 40


def kinds() -> list[torch.dtype]:
    """Of weights that are multiplied here."""
    there = {torch.float32: True, torch.float16: multiplies_float16(), torch.bfloat16: multiplies_bfloat16()}
    return [dtype for dtype, able in there.items() if able]


def products(weights: Sequence[Ordered], rows: int) -> Side:
    """Seconds of all products."""
    rows_NI = torch.randn(rows, SHAPE[1])
    return timed(lambda: [weight.product(rows_NI) for weight in weights])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    turns = parser.parse_args(arguments).turns
    weights = [[ordered(torch.randn(SHAPE), dtype) for _ in range(MATRICES)] for dtype in kinds()]
    cells = []
    for rows in ROWS:
        flop = 2 * MATRICES * rows * SHAPE[0] * SHAPE[1]
        seconds = alternate([products(some, rows) for some in weights], turns)
        cells.append((str(rows), *(f"{flop / min(spent) / 1e9:.0f}" for spent in seconds)))
    head = ("rows", *(f"{str(dtype).removeprefix('torch.')}, GFLOP/s" for dtype in kinds()))
    print(Sheet(head, cells).markdown())


if __name__ == "__main__":
    main()
