"""One run from settings to table: build, train with progress, save, evaluate."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from dlr_cli.following import WHAT, lead, part
from dlr_cli.guarding import require_finite, require_unchanged
from dlr_cli.measure import complete, printable
from dlr_cli.progress import RunProgress
from dlr_cli.report.page import render
from dlr_cli.resuming import go_on
from dlr_cli.stopping import Stop
from dlr_cli.table import open_console, print_table
from dlr_core.checkpoints import Checkpoints, has_checkpoint
from dlr_core.config import RunConfig
from dlr_core.controls import control_table
from dlr_core.durable import write_whole
from dlr_core.errors import kind_and_line
from dlr_core.host import PluginHost
from dlr_core.loggers import Loggers
from dlr_core.pipeline import build_trainer, eval_sizes
from dlr_core.protocols import Outcome, RunInfo, RunSummary
from dlr_core.questions import distinct_items
from dlr_core.ranks import Ranks
from dlr_core.rundir import RunFolder, check_free, read_log, read_manifest
from dlr_core.traces import trace
from dlr_core.trainer import Trainer


def execute(
    config: RunConfig,
    host: PluginHost,
    *,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    again: str | None = None,
    quiet: bool = False,
    ranks: Ranks | None = None,
) -> None:
    """Train and evaluate; everything is left in the run folder.

    Args:
        config: settings.
        host: every component.
        out: the run folder; one named by the time if None.
        resume: continue what is there.
        overwrite: replace what is there.
        as_json: print the table as JSON; with no table nothing.
        again: what an interrupted user is told to do; to resume, if None.
        quiet: print no table, and progress on stderr.
        ranks: who trains together; this is the first of them, and the others :func:`dlr_cli.following.follow` it.
    """
    ranks = ranks or Ranks()
    console = open_console(stderr=as_json or quiet)
    path = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    again = again or f"dlr run --resume {path}" + (f" --ranks {ranks.size}" if ranks.size > 1 else "")
    with ranks.agreeing():
        check_free(path, resume=resume, overwrite=overwrite)
        loggers = Loggers.build(config.loggers, host, warn=lambda text: print(f"warning: {text}", file=sys.stderr))
        with console.status("loading the main model …"):
            trainer = build_trainer(config, host, ranks)
            digest = trainer.env.engine.decoder.fingerprint()
    ranks.same(WHAT, digest)
    folder = RunFolder(path, resume=resume, overwrite=overwrite)
    try:
        parameters, where = _count(trainer), place(trainer.env.engine.decoder)
        stopped: str | None = None
        with ranks.agreeing():
            if resume:
                with console.status("restoring the newest checkpoint …"):
                    stopped = go_on(trainer, path, read_manifest(path), config, {"digest": digest, **where})
        several = {"ranks": ranks.size} if ranks.size > 1 else {}
        lead(ranks, path if resume else None, bool(stopped))
        folder.manifest(config, digest, main_model=where, parameters=parameters, plugins=host.distributions, **several)
        if resume:
            folder.truncate_logs(trainer.step_number)
            folder.note_resume(trainer.step_number)
        earlier = read_log(path, "metrics")
        loggers.begin(RunInfo(path, config.model_dump(mode="json"), digest, parameters, earlier))
        with _ending(loggers, trainer, folder, again) as end:
            finished, end.reason = (True, stopped) if stopped else _train(config, trainer, folder, loggers, console)
            if not finished:
                end.outcome = "interrupted"
                console.print(f"saved; go on with: {again}", highlight=False)
                sys.exit(130)
            if end.reason:
                console.print(f"stopped by {end.reason}", highlight=False)
            result = _evaluate(config, host, trainer, folder, console, digest, end.reason)
            end.outcome, end.table = "stopped" if end.reason else "finished", result or None
        if loggers.failed:
            folder.manifest(config, digest, failed_loggers=loggers.failed)
        if as_json and result:
            print(json.dumps(printable(result)))
        elif result and not quiet:
            print_table(result, console)
        write_whole(path / "report.html", render([path]))
        board = "; tensorboard --logdir " + str(path) if (path / "tensorboard").is_dir() else ""
        console.print(f"run folder: {path} (report.html{board})", highlight=False)
    finally:
        folder.close()


@dataclass
class _End:
    """How a run ends, as far as it is known: failed until it is known better."""

    outcome: Outcome = "failed"
    reason: str | None = None
    table: dict[str, Any] | None = None


@contextmanager
def _ending(loggers: Loggers, trainer: Trainer, folder: RunFolder, again: str) -> Iterator[_End]:
    """Tells the loggers how the run ended, whatever happens inside."""
    end = _End()
    try:
        yield end
    except KeyboardInterrupt:
        end.outcome = "interrupted"
        print(f"go on from the newest checkpoint with: {again}", file=sys.stderr)
        raise
    except Exception as error:
        end.reason = kind_and_line(error)
        raise
    finally:
        loggers.end(RunSummary(end.outcome, trainer.step_number, trainer.seconds, end.reason, folder.cost(), end.table))


def start_or_go_on(
    config: RunConfig, host: PluginHost, folder: Path, *, as_json: bool = False, quiet: bool = False
) -> None:
    """:func:`execute` as one of many runs: from its newest checkpoint if it has one, else from the start."""
    begun = (folder / "manifest.json").is_file()
    resume = begun and has_checkpoint(folder)
    execute(
        config, host, out=folder, resume=resume, overwrite=begun and not resume, as_json=as_json, quiet=quiet,
        again="the same command again",
    )  # fmt: skip


def place(decoder: Any) -> dict[str, str]:
    """Where and in what precision the main model computes, for the manifest."""
    return {"device": str(decoder.device), "dtype": str(decoder.dtype).removeprefix("torch.")}


def _count(trainer: Trainer) -> dict[str, int]:
    joint = sum(p.numel() for p in trainer.space.trainable())
    return {"assistant": sum(p.numel() for p in trainer.assistant.parameters()), "chart": joint}


def _train(
    config: RunConfig, trainer: Trainer, folder: RunFolder, loggers: Loggers, console: Console
) -> tuple[bool, str | None]:
    """Train until a limit, a logger or the user ends it.

    Returns:
        Whether it was not the user, and why a logger wanted it to end.
    """
    reason = None
    ranks = trainer.ranks
    stop = Stop(ranks)
    checkpoints = Checkpoints(folder.path, config.checkpoint, read_log(folder.path, "metrics"))
    progress = RunProgress(console, steps=trainer.total_steps, minutes=config.minutes, done=trainer.step_number)
    try:
        with progress:
            for metrics in trainer.run():
                folder.log(metrics)
                checkpoints.saw(metrics)
                reason = loggers.step(metrics)
                progress.update(metrics, trainer.seconds)
                require_finite(trainer, folder.path)
                if ranks.any(bool(reason) or stop.asked):
                    stop.asked = stop.asked or not reason  # else it was another rank that was asked
                    break
                if checkpoints.due(trainer.step_number) and not trainer.updates.in_row:  # steps left out may come again
                    folder.sync()
                    checkpoints.save(trainer)
        folder.sync()
        checkpoints.save(trainer, stopped=reason)
        part(trainer, ranks)
    finally:
        stop.restore()
    return not stop.asked, reason


def _evaluate(
    config: RunConfig, host: PluginHost, trainer: Trainer, folder: RunFolder, console: Console, digest: str,
    stopped: str | None,
) -> dict[str, Any]:  # fmt: skip
    engine, split = trainer.env.engine, config.eval.split
    parts = (trainer.estimator, trainer.scorer)
    needs_gold = config.warmstart.steps > 0 or any(getattr(part, "needs_gold", False) for part in parts)
    if config.init_from:
        needs_gold = needs_gold or read_manifest(Path(config.init_from))["gold_answers_seen"]
    training = {"steps": trainer.step_number, "seconds": trainer.seconds, "stopped": stopped}
    after = engine.decoder.fingerprint()
    folder.manifest(
        config,
        digest,
        main_model={"digest_after": after},
        gold_answers_seen=needs_gold,
        training=training,
        cost=folder.cost(),
    )
    require_unchanged(digest, after, config, host)
    questions, prompt_questions = eval_sizes(config, host)
    if not questions:
        return {}
    with console.status("evaluating …") as status:

        def report(text: str) -> None:
            status.update(f"evaluating: {text} …")
            if not console.is_terminal:
                console.print(f"evaluating: {text}", highlight=False)

        result = control_table(
            engine,
            trainer.assistant,
            host,
            questions=questions,
            split=split,
            prompt_questions=prompt_questions,
            only=config.eval.controls,
            refiner=host.create("refiner", config.eval.refiner) if config.eval.refiner else None,
            report=report,
        )
        digests = {"before": digest, "after": engine.decoder.fingerprint()}
        require_unchanged(digest, digests["after"], config, host)
        result = complete(result, config.env, digests, read_manifest(folder.path), folder.path)
        folder.write("eval.json", result)
        folder.traces(trace(engine, trainer.assistant, distinct_items(engine.task, split, 16)))
    return result
