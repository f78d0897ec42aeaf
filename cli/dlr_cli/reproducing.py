"""A run made again, step by step beside what it logged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from dlr_cli.progress import RunProgress
from dlr_cli.screen import complain
from dlr_cli.session import place
from dlr_cli.stopping import Stop
from dlr_core.checkpoints import save_checkpoint
from dlr_core.config import resolve
from dlr_core.errors import RunFolderError
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer
from dlr_core.provenance import differences, provenance
from dlr_core.reproduce import Difference, different_weight, first_difference, logged_progress, logged_steps
from dlr_core.rundir import RunFolder, check_free, read_manifest
from dlr_core.trainer import Trainer


def make_again(
    run: Path, host: PluginHost, out: Path, *, steps: int | None, overwrite: bool, console: Console
) -> dict[str, Any]:
    """Train a run's settings again in a new folder until a metric differs, or to the end.

    Returns:
        ``{"run", "folder", "steps", "identical", "difference", "weights", "warnings"}``: ``difference`` is ``{step,
        metric, was, now}`` or None; ``weights`` the first tensor that differs after the last step, None if none does,
        ``"not compared"`` where the run kept no checkpoint of that step.
    """
    manifest = read_manifest(run)
    if "baseline" in manifest:
        raise RunFolderError(f"{run} holds a baseline; only runs are made again")
    rows = logged_steps(run, steps)
    config = resolve(manifest["config"], host)
    check_free(out, resume=False, overwrite=overwrite)
    with console.status("loading the main model …"):
        trainer = build_trainer(config, host)
        decoder = trainer.env.engine.decoder
        digest = decoder.fingerprint()
    trainer.recorded = logged_progress(config, rows)
    main_model = {"digest_before": digest, **place(decoder)}
    warnings = _warnings(manifest, {**provenance(), "plugins": host.distributions, "main_model": main_model})
    for line in warnings:
        complain("warning", line)
    folder = RunFolder(out, overwrite=overwrite)
    try:
        about: dict[str, Any] = {"run": str(run), "steps": len(rows), "warnings": warnings}
        folder.manifest(config, digest, main_model=place(decoder), plugins=host.distributions, reproduces=about)
        difference = _train(trainer, rows, folder, console)
        weights = None if difference else _compare_weights(trainer, run, folder, config.checkpoint.keep)
        about |= {
            "identical": difference is None and weights in (None, NOT_COMPARED),
            "difference": asdict(difference) if difference else None,
            "weights": weights,
        }
        folder.manifest(config, digest, main_model={"digest_after": decoder.fingerprint()}, reproduces=about)
    finally:
        folder.close()
    console.print(_verdict(run, len(rows), difference, weights), highlight=False, soft_wrap=True)
    return {**about, "folder": str(out)}


NOT_COMPARED = "not compared"


def _warnings(manifest: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs from the manifest, and from what the run was resumed with."""
    lines = differences(manifest, now)
    for resumed in manifest.get("resumed", []):
        parts = differences({**manifest, **resumed}, now)
        lines += [f"resumed after step {resumed['step']}: {line}" for line in parts if line not in lines]
    return lines


def _train(
    trainer: Trainer, rows: Sequence[Mapping[str, Any]], folder: RunFolder, console: Console
) -> Difference | None:
    """As many steps as there are rows, whatever the clock says."""
    stop = Stop()
    try:
        with RunProgress(console, steps=len(rows), minutes=None) as progress:
            for row in rows:
                metrics = trainer.step()
                folder.log(metrics)
                progress.update(metrics, trainer.seconds)
                if (difference := first_difference(row, metrics)) is not None:
                    return difference
                if stop.asked:
                    raise KeyboardInterrupt
    finally:
        stop.restore()
    return None


def _compare_weights(trainer: Trainer, run: Path, folder: RunFolder, keep: int) -> str | None:
    made = save_checkpoint(trainer, folder.path / "checkpoints", keep)
    kept = run / "checkpoints" / made.name
    return different_weight(kept, made) if kept.is_dir() else NOT_COMPARED


def _verdict(run: Path, steps: int, difference: Difference | None, weights: str | None) -> str:
    if difference is not None:
        return f"differs from {run} at {difference}"
    if weights == NOT_COMPARED:
        return f"all {steps} steps agree with {run} bit for bit (it kept no weights of step {steps} to compare)"
    if weights is not None:
        return f"all {steps} steps agree with {run}, but the weights after them differ, first in {weights}"
    return f"all {steps} steps agree with {run} bit for bit, and so do the weights after them"
