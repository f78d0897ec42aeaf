"""``dlr eval``: trained runs beside their controls, on questions they never saw; and what they leave untouched."""

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders; several are put together.")],
    env: Annotated[str | None, typer.Option(help="Evaluate on another environment: transfer.")] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="Distinct questions; the environment's own number if not given.")
    ] = None,
    k: Annotated[
        int, typer.Option(min=1, max=4096, help="With more than 1: pass@1 … pass@k and maj@k of sampled chains.")
    ] = 1,
    samples: Annotated[
        int | None, typer.Option(min=1, max=8192, help="Chains sampled for --k; 2k if not given.")
    ] = None,
    split: Annotated[str, typer.Option(help="test for figures, validation for choices.")] = "test",
    data_seed: Annotated[int, typer.Option(min=0, help="Which questions of the split.")] = 0,
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="NAME", help="Only this row beside the trained one, such as mean; repeatable."),
    ] = None,
    baselines: Annotated[
        list[Path] | None,
        typer.Option("--baseline", metavar="FOLDER", help="A trained baseline (dlr baseline) as a row; repeatable."),
    ] = None,
    refiner: Annotated[
        str | None, typer.Option(help="Also a row of latents improved at test time; see: dlr list refiner.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint before which the mean reward was highest, not the newest.")
    ] = False,
    retention: Annotated[
        bool, typer.Option("--retention", help="Other tasks instead: is the frozen model what it was, do latents harm?")
    ] = False,
    saved: Annotated[bool, typer.Option("--saved", help="Take the table each run left; measure nothing.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare trained runs with their controls: greedy accuracy, 95 % intervals, differences paired over questions.

    Questions are split by content, so none was trained on. Several runs (seeds) make one table: means over runs, the
    interquartile mean, and intervals that resample runs as well as questions. With --retention: plain completions
    against those of a model loaded anew, and accuracy on five other tasks with the run's latents and without. With
    --baseline: a row for what `dlr baseline` trained on gold answers, over the same questions.

    Examples: dlr eval runs/main --n 300 --json; dlr eval runs/main --baseline runs/prefix0;
    dlr eval runs/seed0 runs/seed1 runs/seed2 --saved --markdown; dlr eval --retention runs/main;
    dlr eval runs/main --n 50 --refiner latentseek; dlr eval runs/main --n 2000 --row mean --row shuffled
    """
    import json

    from dlr_cli.host import load_host
    from dlr_cli.measure import measure_retention, measure_run, printable, saved_table
    from dlr_cli.table import open_console, print_markdown, print_retention, print_table
    from dlr_core.aggregate import aggregate
    from dlr_core.errors import ConfigError

    if split not in ("test", "validation"):
        raise ConfigError(f"--split: expected test or validation, got {split!r}")
    if samples is not None and samples < k:
        raise ConfigError(f"--samples: expected at least --k={k}, got {samples}")
    if refiner and (retention or saved):
        raise ConfigError("--refiner improves latents while questions are answered: no --retention or --saved")
    if retention and (len(runs) > 1 or saved or env or baselines):
        raise ConfigError("--retention takes one run and no --env, --saved or --baseline: it measures other tasks")
    if saved and baselines:
        raise ConfigError("--baseline must be measured on the same questions: drop --saved")
    if rows and (retention or saved):
        raise ConfigError("--row chooses what is measured: no --retention or --saved")
    if best and (retention or saved):
        raise ConfigError("--best chooses what is measured: no --retention or --saved")
    host = load_host()
    if refiner:
        host.find("refiner", refiner)
    console = open_console(stderr=as_json or markdown)
    with console.status("loading …") as status:

        def report(text: str) -> None:
            status.update(f"evaluating: {text} …")

        if retention:
            kept = measure_retention(runs[0], host, count=n or 200, report=report)
            print(json.dumps(kept)) if as_json else print_retention(kept, console, markdown=markdown)
            return
        results: list[dict[str, Any]] = []
        for run in runs:
            if saved:
                results.append(saved_table(run))
                continue
            results.append(
                measure_run(
                    run, host, env=env, n=n, k=k, samples=samples, split=split, seed=data_seed, report=report,
                    baselines=baselines or (), refiner=refiner, best=best, rows=rows,
                )
            )  # fmt: skip
    result = results[0] if len(results) == 1 else aggregate(results)
    if as_json:
        print(json.dumps(printable(result)))
    elif markdown:
        print_markdown(result)
    else:
        print_table(result, console)
