"""The memory plan of ``dlr run --dry-run``: what a run would take, what there is, and how much more would fit."""

import shutil
from typing import Any

import torch
from rich.console import Console

from dlr_cli.table import headed
from dlr_core.common_prefix import common_prefix
from dlr_core.config import MOST_CHAINS, RunConfig
from dlr_core.errors import DLRError, kind_and_line
from dlr_core.host import PluginHost
from dlr_core.memory import PARTS, ModelSize, Plan, RunSize, largest, of_rank, plan, store_bytes
from dlr_core.pipeline import env_kwargs
from dlr_core.prompt_store import spacious
from dlr_core.questions import calibration_questions
from dlr_core.timelimit import within

ASSUMED = 64
"""Tokens of a prompt, where no question of the task can be had."""
MARGIN = 1.2
"""How much more than the plan a run is allowed for: it is below what was measured (docs/memory.md)."""
LONGEST = 64
"""Latents in a chain, of a space that names no bound."""
PATIENCE = 20.0
"""Seconds that a task has to give its first questions."""


def print_plan(config: RunConfig, host: PluginHost, ranks: int, console: Console) -> None:
    """What a run with these settings would take; where that cannot be known, why, in a line."""
    factory = host.find("decoder", config.decoder.name).factory
    if not hasattr(factory, "outline"):
        console.print(f"memory: no plan for decoder {config.decoder.name!r}", highlight=False, soft_wrap=True)
        return
    own = factory.Options.model_fields
    options = {key: value for key, value in config.decoder.options.items() if key in own}
    try:
        outline = factory.outline(host.options("decoder", config.decoder.name, options))
        run, notes = _run_size(config, host, outline)
    except DLRError as error:
        console.print(f"memory: no plan: {error}", highlight=False, soft_wrap=True)
        return
    share = of_rank(run, ranks)
    there = outline.available() // (ranks if outline.place.type == "cpu" else 1)
    console.print(_table(plan(outline.size, share), config, ranks))
    lines = _verdict(outline.size, share, there, outline.positions, _bound(config, host))
    for line in [*lines, *_on_disk(outline.size, share, ranks), *notes]:
        console.print(line, highlight=False, soft_wrap=True)


def _table(made: Plan, config: RunConfig, ranks: int) -> Any:
    each = f", each of {ranks} ranks" if ranks > 1 else ""
    name = f"memory of {config.decoder.model}, MB{each}"
    table = headed(name, ["", "held", *made.phases])
    for part, size in made.held.items():
        table.add_row(part, _mb(size), *[""] * len(made.phases))
    for part in PARTS:
        table.add_row(part, "", *(_mb(sizes.get(part, 0)) for sizes in made.phases.values()))
    table.add_row("together", *map(_mb, (sum(made.held.values()), *map(made.during, made.phases))), style="bold")
    return table


def _verdict(model: ModelSize, run: RunSize, there: int, positions: int | None, latents: int) -> list[str]:
    made = plan(model, run)
    usable = int(there / MARGIN)
    fits = "fits" if made.total <= usable else "does NOT fit"
    most = {  # of T, what its space allows
        "K": MOST_CHAINS // run.questions,
        "B": MOST_CHAINS // run.samples,
        "T": max(0, min(latents, (positions or latents) - run.prompt - run.pending - run.tokens)),
    }
    now = {"K": run.decodes, "B": run.questions, "T": run.latents}
    found = {which: largest(model, run, which, usable, limit) for which, limit in most.items()}
    beyond = {which: "≥ " if found[which] == most[which] else "" for which in most}
    return [
        f"at its fullest ({made.fullest}) {_gb(made.total)} of {_gb(there)} that are free: {fits}",
        "most that fits, all else as it is: "
        + ", ".join(f"{which} = {beyond[which]}{found[which]} (set: {now[which]})" for which in most),
    ]


def _on_disk(model: ModelSize, run: RunSize, ranks: int) -> list[str]:
    """What a file of remembered prompts takes, and where."""
    if not (run.on_disk and run.stored):
        return []
    size, folder = ranks * store_bytes(model, run), spacious()
    free = shutil.disk_usage(folder).free
    room = "" if size <= free else ": NOT enough, prompts that find no room are prefilled again"
    return [
        f"prompts of replay and frontier: {_gb(size)} on disk, in {folder}, of {_gb(free)} that are free there{room}"
    ]


def _run_size(config: RunConfig, host: PluginHost, outline: Any) -> tuple[RunSize, list[str]]:
    """What a step does, and what had to be assumed for it."""
    kwargs, notes = env_kwargs(config, host), []
    longest, beginning = ASSUMED, 0

    def read() -> tuple[int, int]:
        task = host.create("task", kwargs["task"], kwargs["task_kwargs"])
        prompts = [outline.prompt_ids(question) for question in calibration_questions(task)]
        return max(map(len, prompts)), common_prefix(prompts) if len(prompts) > 1 else 0

    try:
        longest, beginning = within(PATIENCE, read)
    except Exception as error:  # a stranger's task may raise anything
        notes.append(f"assumed: prompts of {ASSUMED} tokens ({kind_and_line(error)})")
    space = _made(host, "space", config.space.name, config.space.options, notes, decoder=outline)
    latents = int(getattr(space, "num_latents", config.space.options.get("num_latents", 1)))
    width = int(getattr(space, "latent_dim", config.space.options.get("latent_dim", outline.hidden_size)))
    anchor, pending = len(getattr(space, "anchor_ids", [])), len(getattr(space, "pending_ids", []))
    shape = {"hidden_size": outline.hidden_size, "num_latents": latents, "latent_dim": width}
    parts = {
        kind: _made(host, kind, getattr(config, kind).name, getattr(config, kind).options, notes, **shape)
        for kind in ("assistant", "contrastive", "scorer")
    }
    trained = sum(_count(part) for part in (*parts.values(), *(space.trainable() if space else ())))
    mine, replay = config.assistant.options, config.replay
    estimator = host.find("estimator", config.estimator.name).factory
    known = config.space.name in host.names("space")  # else it is a saved one: kv, most often
    shares = not known or bool(getattr(host.find("space", config.space.name).factory, "shares_prompts", False))
    return RunSize(
        questions=config.batch.questions,
        samples=config.batch.samples,
        decodes=config.decodes,
        completions=config.decoder.decodes_per_chain,
        prompt=longest + (anchor - latents if anchor else 0),
        latents=latents,
        latent_dim=width,
        pending=pending,
        tokens=kwargs["max_new_tokens"],
        trained=trained,
        width=int(mine.get("width", 0)),
        blocks=int(mine.get("layers", 0)),
        replayed=replay.chains,
        at_once=replay.at_once or 0,
        searched=replay.search if replay.chains else 0,
        tries=replay.tries,
        stored=(replay.capacity + replay.frontier) if replay.chains else 0,
        beginning=beginning,
        store_limit=replay.cache_bytes,
        on_disk=replay.cached_on_disk(outline.place.type),
        sampled=config.decoder.temperature > 0,
        needs_gradient=getattr(estimator, "needs_gradient", True),
        residual=shares,
    ), notes


def _made(host: PluginHost, kind: str, name: str, options: Any, notes: list[str], **context: Any) -> Any:
    """A part of the run, made to be counted; None, and a note, where that needs the main model itself.

    A space draws its chart from a seed, which only a real device does; the others need no numbers.
    """
    try:
        if kind == "space":
            return host.create(kind, name, options, **context)
        with torch.device("meta"):
            return host.create(kind, name, options, **context)
    except Exception as error:  # a stranger's part may raise anything
        notes.append(f"not counted: parameters of {kind} {name!r} ({kind_and_line(error)})")
        return None


def _bound(config: RunConfig, host: PluginHost) -> int:
    """The most latents that the space's own options allow."""
    known = config.space.name in host.names("space")
    options: Any = getattr(host.find("space", config.space.name).factory, "Options", None) if known else None
    field = options and options.model_fields.get("num_latents")
    return next((int(rule.le) for rule in (field.metadata if field else ()) if hasattr(rule, "le")), LONGEST)


def _count(part: Any) -> int:
    """Parameters that learn."""
    own = part.parameters() if hasattr(part, "parameters") else [part] if hasattr(part, "numel") else []
    return sum(parameter.numel() for parameter in own if parameter.requires_grad)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f}" if size >= 1e7 or not size else f"{size / 1e6:.2g}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
