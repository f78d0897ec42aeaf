"""How long commands take to start, and a first step, each in a process of its own.

python benchmarks/start_up.py

In turn: ``dlr --help``, ``dlr list``, what a user of Transformers waits for anyway (importing it and torch), the first
step of an environment (imports, loading the main model, fitting the space, one question answered), and the same answer
by Transformers alone (imports, loading, ``generate``). The ratio is the import's seconds over those of ``dlr list``.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dlr_plugins.decoders import smollm2
from entries import HERE, record
from interleaved import alternate, ratio_of_medians
from pictures import bars
from sheet import Sheet, spread

OURS = """
import dlr_envs, gymnasium
env = gymnasium.make("dlr/ChainSum-v0", decoder={model!r}, disable_env_checker=True)
env.reset(seed=0)
print(env.step(env.action_space.sample() * 0)[-1]["completion"])
"""
THEIRS = """
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r})
ids = tokenizer("State the final answer to the following arithmetic problem: 27 + 45 =", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0]))
"""
LIST, IMPORT = "dlr list", "import torch, transformers"


def commands(model: str) -> dict[str, list[str]]:
    """What is started, by name."""
    dlr = str(Path(sys.executable).with_name("dlr"))
    folder = str(smollm2.folder()) if model == smollm2.NAME else model
    return {
        "dlr --help": [dlr, "--help"],
        LIST: [dlr, "list"],
        IMPORT: [sys.executable, "-c", IMPORT],
        "first step of an environment": [sys.executable, "-c", OURS.format(model=model)],
        "first answer of Transformers": [sys.executable, "-c", THEIRS.format(folder=folder)],
    }


def seconds(command: Sequence[str]) -> float:
    """From start to exit.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    spent = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:120]} failed: {done.stderr.strip()[-400:]}")
    return spent


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Seconds, median (least … most)."""
    rows = [(f"`{name}`" if " -" in name or name in (LIST, IMPORT) else name, spread(values))
            for name, values in measured["seconds"].items()]  # fmt: skip
    return Sheet(("started", "seconds"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="turns, after one to warm the disk's cache up")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)
    started = commands(args.main_model)
    sides = [lambda turn, line=line: seconds(line) for line in started.values()]
    alternate(sides, 1)
    taken = dict(zip(started, alternate(sides, args.repeats), strict=True))
    found = ratio_of_medians(taken[LIST], taken[IMPORT])
    measured = {"main_model": Path(args.main_model).name, "seconds": taken}
    sheet(measured).print()
    record("start_up", found, measured, args.out)
    shown = {name: (float(np.median(values)), min(values), max(values)) for name, values in taken.items()}
    bars(args.out / "start_up.png", "From start to exit: median, least, most", "seconds", shown)


if __name__ == "__main__":
    main()
