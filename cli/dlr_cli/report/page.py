"""Everything that runs left behind, gathered for the template."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from dlr_cli.report.curves import COLOURS, PANELS, control_bars, heatmap, panel, with_cost
from dlr_cli.table import HEADINGS, LABELS, RETENTION_HEADINGS, cells, remarks, retention_cells, retention_remark, title
from dlr_core.aggregate import aggregate
from dlr_core.paths import is_file
from dlr_core.rundir import read_manifest
from dlr_core.saved import Accumulation, Retention, Step, Trace, read_rows, read_saved, read_table

RUN_HEADINGS = ("run", "environment", "assistant", "estimator", "seed", "steps", "minutes", "gold seen", "TFLOP")
TRACES = 12
PLAN = "curriculum.json"
"""The file that tells a curriculum's folder from a run's."""


def render(folders: Sequence[Path]) -> str:
    """The page of some folders, each a run's or a curriculum's, which stands for all of its runs.

    Raises:
        RunFolderError: one of them holds no run.
    """
    curricula = [folder for folder in folders if is_file(folder / PLAN)]
    folders = [run for folder in folders for run in (stages_of(folder) if folder in curricula else [folder])]
    manifests = {folder: read_manifest(folder) for folder in folders}
    names = unique_names(folders)
    logs = {names[folder]: with_cost(read_rows(Step, folder / "metrics.jsonl")) for folder in folders}
    found = ((key, name, about, panel(key, logs, name)) for key, name, about in PANELS)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("dlr_cli.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    tables = [{"run": names[folder], **table} for folder in folders if (table := read_table(folder))]
    page = template.render(
        title=f"DeepLatent Reasoning: {', '.join(names.values())}",
        run_headings=RUN_HEADINGS,
        runs=[describe(n, names[folder], manifests[folder]) for n, folder in enumerate(folders)],
        tables=[table_of(table) for table in together(tables)],
        panels=[{"name": name, "about": about, "svg": drawn} for _, name, about, drawn in found if drawn],
        retentions=[
            retention_of(names[folder], kept)
            for folder in folders
            if (kept := read_saved(Retention, folder / "retention.json"))
        ],
        accumulations=[
            accumulation_of(folder.resolve().name, grown)
            for folder in curricula
            if (grown := read_saved(Accumulation, folder / "accumulation.json"))
        ],
        traces=[
            {"run": names[folder], "rows": rows}
            for folder in folders
            if (rows := read_rows(Trace, folder / "traces.jsonl")[:TRACES])
        ],
    )
    return page.encode("utf-8", "replace").decode()  # JSON can hold halves of surrogate pairs, a file cannot


def stages_of(folder: Path) -> list[Path]:
    """A curriculum's runs: its skills, then the stages of the one assistant."""
    return [*sorted(folder.glob("library-*")), *sorted(folder.glob("sequence-*"))]


def unique_names(folders: Sequence[Path]) -> dict[Path, str]:
    """Folder names, whole paths where two are alike."""
    short = [folder.resolve().name for folder in folders]
    return {f: str(f) if short.count(name) > 1 else name for f, name in zip(folders, short, strict=True)}


def together(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables of one environment and split as one, where they know their questions' results."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for table in tables:
        groups.setdefault((table["env"], table["split"]), []).append(table)
    return [
        shown
        for group in groups.values()
        for shown in ([aggregate(group)] if len(group) > 1 and all("per_question" in t for t in group) else group)
    ]


def describe(number: int, name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A run's line in the first table."""
    config, training = manifest["config"], manifest.get("training", {})
    cost = manifest.get("cost", {}).get("flops")
    shown = (
        config["env"],
        manifest["baseline"].get("label", "a baseline") if "baseline" in manifest else config["assistant"]["name"],
        manifest.get("algorithm", config["estimator"]["name"]),
        config["seed"],
        training.get("steps", "unfinished"),
        f"{training['seconds'] / 60:.1f}" if "seconds" in training else "",
        "yes" if manifest["gold_answers_seen"] else "no",
        f"{cost / 1e12:.3g}" if cost else "",
    )
    text = json.dumps(config, indent=2)
    return {"name": name, "colour": COLOURS[number % len(COLOURS)], "cells": shown, "config": text}


def table_of(table: dict[str, Any]) -> dict[str, Any]:
    """A control table for the template."""
    return {
        "title": title(table),
        "bars": control_bars(table, LABELS),
        "headings": HEADINGS,
        "rows": cells(table),
        "remarks": remarks(table),
    }


def retention_of(name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """A retention table for the template."""
    rows = retention_cells(kept)
    return {"run": name, "headings": RETENTION_HEADINGS, "rows": rows, "remark": retention_remark(kept)}


def accumulation_of(name: str, grown: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices task × stage for the template."""
    stages = [f"after {task}" for task in grown["tasks"]]
    matrices = [
        {
            "name": about["name"],
            "about": f"average accuracy {about['average']:.1%}, backward transfer {about['backward_transfer']:+.1%}, "
            f"forgetting {about['forgetting']:.1%}",
            "svg": heatmap(about["matrix"], stages, grown["tasks"], about["name"]),
        }
        for about in grown["learners"]
    ]
    return {"run": name, "matrices": matrices, "remarks": grown["remarks"]}
