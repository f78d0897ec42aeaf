"""``dlr run --curriculum``: tasks one after another, by a library of skills and by one assistant in sequence."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from dlr_cli.report.page import PLAN, render
from dlr_cli.session import start_or_go_on
from dlr_cli.table import headed, open_console
from dlr_core.assignments import read_toml
from dlr_core.config import RunConfig, resolve, same_settings
from dlr_core.controls import paired
from dlr_core.errors import ConfigError, RunFolderError
from dlr_core.evaluate import Evaluator
from dlr_core.host import PluginHost
from dlr_core.pipeline import DLRPipeline, env_kwargs
from dlr_core.questions import calibration_questions, distinct_items
from dlr_core.records import Item
from dlr_core.rundir import check_free, read_manifest, write_json
from dlr_core.saved import read_saved
from dlr_core.skills import Router, measures, question_features

Correct = NDArray[np.float64]
ROUTER_QUESTIONS = 128


@dataclass(frozen=True)
class Stage:
    """One task of the curriculum."""

    name: str
    config: RunConfig


def read_plan(text: str, base: Mapping[str, Any], host: PluginHost) -> list[Stage]:
    """Stages from a comma-separated list of environments and tasks, or from a TOML file with ``[[tasks]]`` tables.

    Args:
        text: ``dlr/ChainSum-v0,reasoning-gym:gcd`` or the path of a file, whose tables need ``env`` or ``task.name``
            and may hold any setting besides.
        base: settings that all stages share.
        host: where names are looked up.

    Raises:
        ConfigError: fewer than two stages, two of one name, or bad settings.
    """
    if text.endswith(".toml"):
        tables = read_toml(Path(text)).get("tasks")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ConfigError(f"{text}: expected [[tasks]] tables")
    else:
        tables = [_table(name.strip()) for name in text.split(",") if name.strip()]
    stages, problems = [], []
    for number, table in enumerate(tables, 1):
        parts = (base.get("task", {}), table.get("task", {}))
        odd = next((part for part in parts if not isinstance(part, Mapping)), None)
        task = {**parts[0], **parts[1]} if odd is None else odd  # what is no table is refused with all else
        try:
            config = resolve({**base, "env": "dlr/Reasoning-v0", **table, "task": task}, host)
            stages.append(Stage(config.task.name or config.env, config))
        except ConfigError as error:
            problems += [f"task {number}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    names = [stage.name for stage in stages]
    if len(stages) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"--curriculum: expected at least two different tasks, got {', '.join(names) or 'none'}")
    return stages


def _table(name: str) -> dict[str, Any]:
    return {"task": {"name": name}} if ":" in name else {"env": name, "task": {}}


def learn(stages: Sequence[Stage], host: PluginHost, out: Path, *, overwrite: bool, as_json: bool) -> None:
    """Train both learners stage by stage, measure the matrices, leave ``accumulation.json`` and ``report.html``.

    Given the same folder and the same stages again, it goes on where it stopped.
    """
    console = open_console(stderr=as_json)
    _open(stages, host, out, overwrite=overwrite)
    library = [out / f"library-{n + 1}" for n in range(len(stages))]
    # the first stage of the sequence is the first skill: nothing has been learned before either
    sequence = [library[0], *(out / f"sequence-{n + 1}" for n in range(1, len(stages)))]
    for number, stage in enumerate(stages):
        console.print(f"skill {number + 1}/{len(stages)}: {stage.name}", highlight=False)
        _train(stage.config, host, library[number], as_json)
    for number in range(1, len(stages)):
        console.print(f"one assistant in sequence, {number + 1}/{len(stages)}: {stages[number].name}", highlight=False)
        start = str(sequence[number - 1].resolve())
        _train(stages[number].config.model_copy(update={"init_from": start}), host, sequence[number], as_json)
    with console.status("measuring …") as status:
        result = accumulation(stages, library, sequence, host, lambda text: status.update(f"measuring: {text} …"))
    write_json(out / "accumulation.json", result)
    (out / "report.html").write_text(render([out]), encoding="utf-8")
    if as_json:
        print(json.dumps(result))
        return
    print_accumulation(result, console)
    console.print(f"folder: {out} (report.html)", highlight=False)


def _open(stages: Sequence[Stage], host: PluginHost, out: Path, *, overwrite: bool) -> None:
    """Take the folder, or go on in it if it holds the same stages."""
    plan = [{"name": stage.name, "config": stage.config.model_dump(mode="json")} for stage in stages]

    def holds(saved: Any) -> bool:
        if not isinstance(saved, list) or not all(isinstance(stage, dict) for stage in saved):
            return False
        return [stage.get("name") for stage in saved] == [stage.name for stage in stages] and all(
            same_settings(stage.get("config", {}), own.config, host) for stage, own in zip(saved, stages, strict=True)
        )

    file = out / PLAN
    if file.is_file() and not overwrite:
        if not holds(read_saved(None, file)):
            raise RunFolderError(f"{out} holds another curriculum; choose another --out, or pass --overwrite")
        return
    if file.is_file():
        shutil.rmtree(out)
    check_free(out, resume=False, overwrite=False)
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, plan)


def _train(config: RunConfig, host: PluginHost, folder: Path, as_json: bool) -> None:
    """Train a stage, go on with it, or leave it as it is when it has ended."""
    if (folder / "manifest.json").is_file() and "training" in read_manifest(folder):
        return
    quiet = config.model_copy(update={"eval": config.eval.model_copy(update={"questions": 0})})
    start_or_go_on(quiet, host, folder, as_json=as_json)


def accumulation(
    stages: Sequence[Stage], library: Sequence[Path], sequence: Sequence[Path], host: PluginHost,
    report: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Accuracy of both learners on every task after every stage, the router's loss, and prompts without latents.

    A skill does not change once learned, so it is measured once on every task; what the library answers after stage i
    is what the router then picks among the first i skills.
    """
    count = len(stages)
    skills = [DLRPipeline.from_run(folder, host=host) for folder in library]
    engines = [_engine(skills[0], stage.config) for stage in stages]
    items = [_items(stage, engine, host) for stage, engine in zip(stages, engines, strict=True)]
    decoder = skills[0].engine.decoder
    router = Router()
    for stage, engine in zip(stages, engines, strict=True):
        report(f"router, {stage.name}")
        router.add(question_features(decoder, calibration_questions(engine.task, ROUTER_QUESTIONS)))
    features = [question_features(decoder, [item.question for item in own]) for own in items]
    by_skill = [[_correct(skill, stages[j], items[j], report) for j in range(count)] for skill in skills]
    chosen = [[router.route(features[j], i + 1) for j in range(count)] for i in range(count)]
    routed: list[list[Correct | None]] = [
        [np.choose(chosen[i][j], [by_skill[s][j] for s in range(i + 1)]) for j in range(count)] for i in range(count)
    ]
    in_sequence: list[list[Correct | None]] = [[*by_skill[0]]]
    for folder in sequence[1:]:
        one = DLRPipeline.from_run(folder, host=host)
        in_sequence.append([_correct(one, stages[j], items[j], report) for j in range(count)])
    oracle = [by_skill[j][j] for j in range(count)]
    final = [values for values in routed[-1] if values is not None]
    loss = paired(np.concatenate([best - got for best, got in zip(oracle, final, strict=True)]))
    plain = [Evaluator(e).under_prompt(own, "").correct_N for e, own in zip(engines, items, strict=True)]
    anchor = [_under_anchor(e, own) for e, own in zip(engines, items, strict=True)]
    learners = [
        {"name": "skill library with router", **measures(routed)},
        {"name": "one assistant in sequence", **measures(in_sequence)},
    ]
    right = float(np.mean(np.concatenate([chosen[-1][j] == j for j in range(count)])))
    return {
        "tasks": [stage.name for stage in stages],
        "n": [len(own) for own in items],
        "learners": learners,
        "oracle": [float(values.mean()) for values in oracle],
        "router": {"accuracy": right, "loss": loss["difference"], "loss_ci": loss["ci"]},
        "plain": [float(values.mean()) for values in plain],
        "anchor": [float(values.mean()) for values in anchor],
        "remarks": _remarks(learners, right, loss, plain, anchor),
    }


def _engine(trained: DLRPipeline, config: RunConfig) -> Any:
    kwargs = env_kwargs(config, trained.host)
    task = trained.host.create("task", kwargs["task"], kwargs["task_kwargs"])
    return trained.engine.on(task, kwargs["max_new_tokens"])


def _items(stage: Stage, engine: Any, host: PluginHost) -> list[Item]:
    asked = stage.config.eval.questions or host.create("env", stage.config.env).eval_questions
    return distinct_items(engine.task, stage.config.eval.split, asked)


def _correct(trained: DLRPipeline, stage: Stage, items: Sequence[Item], report: Callable[[str], None]) -> Correct:
    report(stage.name)
    evaluator = Evaluator(_engine(trained, stage.config))
    return evaluator.under_each(items, {"": evaluator.latents(items, trained.assistant)})[""].correct_N


def _under_anchor(engine: Any, items: Sequence[Item]) -> Correct:
    space = engine.space
    zeros = np.zeros((len(items), space.num_latents, space.latent_dim), np.float32)
    return Evaluator(engine).under_each(items, {"": zeros})[""].correct_N


def _remarks(
    learners: Sequence[Mapping[str, Any]], right: float, loss: Mapping[str, Any], plain: Sequence[Correct],
    anchor: Sequence[Correct],
) -> list[str]:  # fmt: skip
    lines = []
    for learner in learners:
        low, high = learner["backward_transfer_ci"]
        lines.append(
            f"{learner['name']}: average accuracy {learner['average']:.1%}, backward transfer "
            f"{learner['backward_transfer']:+.1%} [{low:+.1%}, {high:+.1%}], forgetting {learner['forgetting']:.1%}"
        )
    low, high = loss["ci"]
    lines.append(f"router: {right:.1%} right, {loss['difference']:.1%} [{low:.1%}, {high:.1%}] lost against an oracle")
    means = [float(np.mean([values.mean() for values in rows])) for rows in (plain, anchor)]
    lines.append(f"no latents: plain prompt {means[0]:.1%}, anchor only {means[1]:.1%} on average")
    return lines


def print_accumulation(result: Mapping[str, Any], console: Console) -> None:
    """A matrix task × stage for each learner, and the controls below."""
    for learner in result["learners"]:
        table = headed(f"{learner['name']}: right % on each task's test questions", ("", *result["tasks"]))
        for task, row in zip(result["tasks"], learner["matrix"], strict=True):
            table.add_row(f"after {task}", *("" if value is None else f"{100 * value:.1f}" for value in row))
        if "library" in learner["name"]:
            table.add_row("the task's own skill", *(f"{100 * value:.1f}" for value in result["oracle"]))
            table.add_row("plain prompt", *(f"{100 * value:.1f}" for value in result["plain"]))
            table.add_row("anchor only (a = 0)", *(f"{100 * value:.1f}" for value in result["anchor"]))
        console.print(table)
    for line in result["remarks"]:
        console.print(line, highlight=False)
