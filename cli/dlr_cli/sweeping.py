"""Running a sweep's rows and showing what came of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dlr_cli.host import load_host
from dlr_cli.measure import saved_table
from dlr_cli.session import start_or_go_on
from dlr_cli.table import headed, markdown_table, open_console
from dlr_core.config import RunConfig, resolve, same_settings
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost
from dlr_core.rundir import read_manifest, write_json
from dlr_core.sweep import Row, compare, summarise

HEADINGS = ("variant", "seeds", "steps", "TFLOP", "right %", "interval", "− first", "interval", "− mean", "− shuffled")


def run_sweep(
    rows: Sequence[Row], chosen: Sequence[Row], out: Path, *, dry_run: bool, markdown: bool, as_json: bool
) -> None:
    """Train the chosen rows that have not ended; compare all that have."""
    host = load_host()
    settings = _settle(rows, host)
    console = open_console(stderr=as_json or markdown)
    if dry_run:
        for row in chosen:
            print(out / row.folder)
        return
    for number, row in enumerate(chosen, 1):
        console.print(f"run {number}/{len(chosen)}: {row.variant}, seed {row.seed}", highlight=False)
        _train(settings[row.folder], host, out / row.folder)
    found = (_summary(row, settings[row.folder], host, out / row.folder) for row in rows)
    summaries = [summary for summary in found if summary is not None]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summary.json", summaries)
    lines = compare(summaries)
    if as_json:
        print(json.dumps(lines))
    elif markdown:
        print(as_markdown(lines))
    else:
        _print(lines, console)


def _settle(rows: Sequence[Row], host: PluginHost) -> dict[str, RunConfig]:
    """Every run's settings, validated before the first one starts."""
    settled, problems = {}, []
    for row in rows:
        try:
            settled[row.folder] = resolve(row.values, host)
        except ConfigError as error:
            problems += [f"{row.variant}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return settled


def _train(config: RunConfig, host: PluginHost, folder: Path) -> None:
    begun = (folder / "manifest.json").is_file()
    if begun and not same_settings(read_manifest(folder)["config"], config, host):
        raise ConfigError(f"{folder} holds a run with other settings; choose another --out")
    if begun and (folder / "eval.json").is_file():
        return
    start_or_go_on(config, host, folder, quiet=True)


def _summary(row: Row, config: RunConfig, host: PluginHost, folder: Path) -> dict[str, Any] | None:
    """A finished run's line; None for one that has not ended, or was made with other settings."""
    if not (folder / "eval.json").is_file():
        return None
    manifest = read_manifest(folder)
    if not same_settings(manifest["config"], config, host):
        return None
    return summarise(row, manifest, saved_table(folder))


def cells(line: Mapping[str, Any]) -> list[str]:
    """One variant's texts, under :data:`HEADINGS`."""

    def span(key: str) -> str:
        return f"{100 * line[key][0]:+.1f} … {100 * line[key][1]:+.1f}" if key in line else ""

    def gap(key: str) -> str:
        return f"{100 * line[key]:+.1f} ({span(key + '_ci')})" if key in line else ""

    return [
        line["variant"],
        ", ".join(map(str, line["seeds"])),
        f"{line['steps']:.0f}",
        f"{line['tflop']:.1f}",
        f"{100 * line['accuracy']:.1f}",
        f"{100 * line['ci'][0]:.1f} … {100 * line['ci'][1]:.1f}",
        f"{100 * line['difference']:+.1f}" if "difference" in line else "",
        span("difference_ci"),
        gap("minus_mean"),
        gap("minus_shuffled"),
    ]


def as_markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as a Markdown table."""
    return markdown_table(HEADINGS, map(cells, lines))


def _print(lines: Sequence[Mapping[str, Any]], console: Console) -> None:
    table = headed("means over seeds, 95 % intervals over seeds and questions", HEADINGS)
    for line in lines:
        table.add_row(*cells(line))
    console.print(table)
