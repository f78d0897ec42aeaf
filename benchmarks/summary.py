"""Several finished runs side by side, as Markdown: the control table per run, and how the runs explored.

python benchmarks/summary.py runs/main runs/seed1 runs/seed2
"""

import json
import sys
from pathlib import Path
from typing import Any

from sheet import difference

ROWS = ("plain", "anchor", "best_prompt", "random", "mean", "shuffled", "trained")


def load(run: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Manifest, control table and metrics of a run."""
    manifest = json.loads((run / "manifest.json").read_text())
    table = json.loads((run / "eval.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return manifest, table, metrics


def exploration(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the first half of the reinforcement-learning phase, and the probes of token sampling."""
    phase = [m for m in metrics if m["phase"] == "rl" and m["reward"] is not None]
    half = phase[: max(1, len(phase) // 2)]
    mean = {
        key: sum(m[key] for m in half) / len(half) for key in ("format", "correct", "best_of_k", "distinct_answers")
    }
    probes = [m["distinct_answers_tokens"] for m in half if "distinct_answers_tokens" in m]
    return {**mean, "tokens": sum(probes) / len(probes) if probes else float("nan")}


def gap(paired: Any) -> str:
    """A paired difference with its interval, in points."""
    low, high = paired["ci"]
    return difference(100 * paired["difference"], (100 * low, 100 * high))


def main() -> None:
    """Print both tables."""
    runs = [(Path(name).name, *load(Path(name))) for name in sys.argv[1:]]
    gaps = ("best_prompt", "mean", "shuffled")
    head = ["run", "seed", "steps", "minutes", "TFLOP", "gold seen", "n", *ROWS]
    head += [f"trained − {name}" for name in gaps]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, manifest, table, _ in runs:
        training = manifest["training"]
        cells = [f"{100 * table['rows'][row]['accuracy']:.1f}" for row in ROWS]
        about = [name, manifest["config"]["seed"], training["steps"], f"{training['seconds'] / 60:.1f}"]
        spent = manifest.get("cost", {}).get("flops")
        about.append(f"{spent / 1e12:.1f}" if spent else "")
        gold = "yes" if manifest["gold_answers_seen"] else "no"
        differences = [gap(table["paired"][other]) for other in gaps]
        print("| " + " | ".join(map(str, [*about, gold, table["n"], *cells, *differences])) + " |")
    print(
        "\n| run | format % | right %, mean of 8 | right %, best of 8 | distinct answers, 8 latents | 8 token samples |"
    )
    print("|---|---|---|---|---|---|")
    for name, _, _, metrics in runs:
        if any(m["phase"] == "rl" and m["reward"] is not None for m in metrics):
            seen = exploration(metrics)
            print(
                f"| {name} | {100 * seen['format']:.0f} | {100 * seen['correct']:.1f} | {100 * seen['best_of_k']:.1f} "
                f"| {seen['distinct_answers']:.2f} | {seen['tokens']:.2f} |"
            )


if __name__ == "__main__":
    main()
