"""How fast oneDNN multiplies packed weights here, in float32 and in bfloat16: whether decoder.products=bfloat16 pays.

OMP_NUM_THREADS=1 python benchmarks/products.py
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python benchmarks/products.py   # as if the CPU had no AMX

Products of so many rows with 40 matrices of 1536 × 576, as large as the default model's widest: together they are
larger than a cache, as a model's are. Rows are rounded to bfloat16 and results back to float32, as in a pass. The
fastest of several turns. Prints Markdown.
"""

import argparse
from collections.abc import Sequence

import torch
from dlr_plugins.decoders.packed_linear import in_order, product
from machine import fastest
from sheet import Sheet

ROWS = (8, 64, 512)
SHAPE, MATRICES = (1536, 576), 40


def speed(dtype: torch.dtype, rows: int, turns: int) -> float:
    """GFLOP per second."""
    weights = [in_order(torch.randn(SHAPE), dtype) for _ in range(MATRICES)]
    rows_NI = torch.randn(rows, SHAPE[1])
    seconds = fastest(lambda: [product(rows_NI, weight_OI) for weight_OI in weights], turns)
    return 2 * MATRICES * rows * SHAPE[0] * SHAPE[1] / seconds / 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    turns = parser.parse_args(arguments).turns
    cells = [
        (str(rows), *(f"{speed(dtype, rows, turns):.0f}" for dtype in (torch.float32, torch.bfloat16))) for rows in ROWS
    ]
    print(Sheet(("rows", "float32, GFLOP/s", "bfloat16, GFLOP/s"), cells).markdown())


if __name__ == "__main__":
    main()
