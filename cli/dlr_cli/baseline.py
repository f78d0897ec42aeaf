"""One baseline from settings to folder: build, train with progress, save, look at validation questions."""

import os
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dlr_cli.progress import RunProgress
from dlr_cli.session import place
from dlr_cli.stopping import Stop
from dlr_cli.table import open_console
from dlr_core.baselines import ADAPTER
from dlr_core.config import RunConfig
from dlr_core.controls import summary
from dlr_core.evaluate import Evaluator, best_prompt
from dlr_core.host import PluginHost
from dlr_core.pipeline import eval_sizes, make_engine
from dlr_core.protocols import Baseline
from dlr_core.questions import distinct_items
from dlr_core.rundir import RunFolder, check_free
from dlr_core.supervised import SupervisedTrainer


def train_baseline(
    config: RunConfig, host: PluginHost, method: str, options: Mapping[str, Any], *,
    prompt: str | None, out: Path | None, overwrite: bool, quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train and save a baseline; everything is left in its folder.

    Args:
        config: a run's settings: environment, main model, batch, limits, schedule.
        host: every component.
        method: the baseline's registered name.
        options: its own settings; as many virtual tokens as the run has latents, unless they say otherwise.
        prompt: text that answers begin with; chosen on training questions if None.
        out: the folder; one named by the time if None.
        overwrite: replace what is there.
        quiet: print on stderr.

    Returns:
        ``{"folder", "baseline", "training", "digest", "validation"}``.
    """
    console = open_console(stderr=quiet)
    path = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    check_free(path, resume=False, overwrite=overwrite)
    questions, prompt_questions = eval_sizes(config, host)
    with console.status("loading the main model …") as status:
        engine = make_engine(config, host)
        digest = engine.decoder.fingerprint()
        torch.manual_seed(config.seed)
        virtual_tokens = {"num_virtual_tokens": engine.space.num_latents}
        model = host.options("baseline", method, options)
        known = type(model).model_fields if model else {}
        chosen = {**{key: value for key, value in virtual_tokens.items() if key in known}, **options}
        validated: Any = host.options("baseline", method, chosen)
        baseline: Baseline = host.create("baseline", method, chosen, decoder=engine.decoder)
        if prompt is None:
            prompt = best_prompt(Evaluator(engine), max(prompt_questions, 1), status.update)
    trainer = SupervisedTrainer(config, engine, baseline, lr=validated.lr, prompt=prompt)
    folder = RunFolder(path, overwrite=overwrite)
    try:
        about = {
            "name": method,
            "label": baseline.label,
            "options": validated.model_dump(mode="json"),
            "prompt": prompt,
            "parameters": sum(parameter.numel() for parameter in baseline.trainable()),
        }
        folder.manifest(
            config, digest, main_model=place(engine.decoder), gold_answers_seen=True, baseline=about,
            plugins=host.distributions,
        )  # fmt: skip
        finished = _train(config, trainer, folder, console)
        _save(baseline, path)
        training = {"steps": trainer.step_number, "seconds": trainer.seconds}
        digests = {"before": digest, "after": engine.decoder.fingerprint()}
        result = {"folder": str(path), "baseline": about, "training": training, "digest": digests}
        folder.manifest(
            config, digest, main_model={"digest_after": digests["after"]}, training=training, cost=folder.cost()
        )
        if not finished:
            console.print(f"interrupted: {path} holds what was learned in {trainer.step_number} steps", highlight=False)
            sys.exit(130)
        if questions:
            with console.status("validation questions …"):
                result["validation"] = _validate(engine, baseline, prompt, prompt_questions)
            folder.manifest(config, digest, validation=result["validation"])
    finally:
        folder.close()
    _print(result, console)
    return result


def _train(config: RunConfig, trainer: SupervisedTrainer, folder: RunFolder, console: Console) -> bool:
    stop = Stop()
    try:
        with RunProgress(console, steps=config.steps, minutes=config.minutes) as progress:
            for metrics in trainer.run():
                folder.log(metrics)
                progress.update(metrics, trainer.seconds)
                if stop.asked and not trainer.done():
                    return False
    finally:
        stop.restore()
    return True


def _save(baseline: Baseline, path: Path) -> None:
    """Written aside, then renamed: a reader never sees half of it."""
    scratch = path / f".{ADAPTER}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    baseline.save(scratch)
    os.replace(scratch, path / ADAPTER)


def _validate(engine: Any, baseline: Baseline, prompt: str, count: int) -> dict[str, Any]:
    """Greedy accuracy on validation questions: settings are chosen by it, never by test questions."""
    items = distinct_items(engine.task, "validation", count)
    own = Evaluator(engine.on(engine.task, engine.max_new_tokens, decoder=baseline.adapted()))
    return {"n": len(items), **summary(own.under_prompt(items, prompt))}


def _print(result: Mapping[str, Any], console: Console) -> None:
    about, training = result["baseline"], result["training"]
    console.print(
        f"{about['label']}: {about['parameters']} parameters after {about['prompt']!r}, {training['steps']} steps, "
        f"{training['seconds'] / 60:.1f} min",
        highlight=False,
    )
    if "validation" in result:
        found = result["validation"]
        low, high = found["ci"]
        console.print(
            f"{found['n']} validation questions: {found['accuracy']:.1%} right [{low:.1%}, {high:.1%}], format "
            f"{found['format']:.0%}",
            highlight=False,
        )
    digest = result["digest"]
    same = "unchanged" if digest["before"] == digest["after"] else "CHANGED"
    console.print(f"main model {same}: digest {digest['after'][:16]}…", highlight=False)
    console.print(f"folder: {result['folder']}; dlr eval RUN --baseline {result['folder']}", highlight=False)
