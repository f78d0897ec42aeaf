"""A run folder measured: its control table, its retention, or the table that it left."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlr_core.baselines import load_rival
from dlr_core.config import control_rows, resolve, unknown_rows
from dlr_core.controls import control_table
from dlr_core.errors import ConfigError, RunFolderError
from dlr_core.host import PluginHost
from dlr_core.pipeline import DLRPipeline, eval_sizes
from dlr_core.retention import retention
from dlr_core.rundir import read_manifest, write_json
from dlr_core.saved import read_table

Report = Callable[[str], None]


def measure_run(
    run: Path, host: PluginHost, *, env: str | None, n: int | None, k: int, samples: int | None, split: Any, seed: int,
    report: Report, baselines: Sequence[Path] = (), refiner: str | None = None, best: bool = False,
    rows: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The control table of a run's newest checkpoint (or best), on its environment or another, with trained baselines.

    Raises:
        ConfigError: two baselines in folders of one name, or one that is named like a row; a row that there is not.
    """
    if strange := unknown_rows(rows or (), host):
        raise ConfigError(*(f"--row: {problem}" for problem in strange))
    manifest = read_manifest(run)
    names = [folder.resolve().name for folder in baselines]
    taken = [name for name in names if names.count(name) > 1 or name in (*control_rows(host), "trained")]
    if taken:
        raise ConfigError(f"--baseline: {taken[0]!r} would name two rows; rename the folder")
    trained = DLRPipeline.from_run(run, host=host, env=env, best=best)
    asked = resolve({**manifest["config"], "loggers": ()}, host)  # as for the pipeline: they may be gone
    rivals = [load_rival(folder, host, trained.engine.decoder, asked) for folder in baselines]
    if len({rival.label for rival in rivals}) < len(rivals):
        rivals = [replace(rival, label=f"{rival.label} {rival.name}") for rival in rivals]
    own = host.create("env", trained.config.env).eval_questions
    questions, prompt_questions = eval_sizes(trained.config, host, n or trained.config.eval.questions or own)
    result = control_table(
        trained.engine,
        trained.assistant,
        host,
        questions=questions,
        split=split,
        seed=seed,
        prompt_questions=prompt_questions,
        k=k,
        samples=samples,
        only=rows or None,
        rivals=rivals,
        refiner=host.create("refiner", refiner) if refiner else None,
        report=report,
    )
    digest = {"before": manifest["main_model"]["digest_before"], "after": trained.engine.decoder.fingerprint()}
    return complete(result, trained.config.env, digest, manifest, run)


def complete(
    table: dict[str, Any], env: str, digest: dict[str, str], manifest: dict[str, Any], run: Path
) -> dict[str, Any]:
    """A control table with what belongs beside it: environment, digests, the run and what its training cost."""
    cost = {"cost": manifest["cost"]} if "cost" in manifest else {}
    return {"env": env, "run": run.name, **table, "digest": digest, **cost}


def printable(table: dict[str, Any]) -> dict[str, Any]:
    """A control table as commands print it: without every question's result."""
    return {key: value for key, value in table.items() if key != "per_question"}


def saved_table(run: Path) -> dict[str, Any]:
    """The table that a run left at its end.

    Raises:
        RunFolderError: it left none, or a damaged one.
    """
    table = read_table(run)
    if table is None:
        raise RunFolderError(f"{run} holds no control table (eval.json); measure it without --saved")
    return {"run": run.name, **table}


def measure_retention(run: Path, host: PluginHost, *, count: int, report: Report) -> dict[str, Any]:
    """What a run leaves of the frozen model's other abilities; kept in the run folder as ``retention.json``."""
    digest = read_manifest(run)["main_model"]["digest_before"]
    trained = DLRPipeline.from_run(run, host=host)
    kept = retention(trained, digest, count=count, report=report)
    write_json(run / "retention.json", kept)
    return kept
