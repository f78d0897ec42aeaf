"""The documentation names what there is, and its examples run."""

import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import bad_input
import mutants
import pytest
import soak
from dlr_cli.app import app
from documented import between
from typer.main import get_command

from dlr_core import PluginHost, hookspecs
from dlr_core.host import KINDS, PREFIX
from dlr_core.testing import check_plugin

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLUGINS = (DOCS / "plugins.md").read_text(encoding="utf-8")
COMMANDS = (DOCS / "cli.md").read_text(encoding="utf-8")


def commands(group=None, prefix="dlr"):
    """Every command's whole name."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_command_is_documented():
    assert len(list(commands())) >= 9
    for name in commands():
        assert f"`{name}" in COMMANDS, name


HOOKS = [name for name in vars(hookspecs) if name.startswith("dlr_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_and_its_arguments_are_documented(hook):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in PLUGINS
    if hook.startswith(PREFIX):
        assert f"\n## {hook.removeprefix(PREFIX)}\n" in PLUGINS


def example(kind: str) -> str:
    section = PLUGINS.split(f"\n## {kind}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_registers_a_part_that_keeps_its_contract(kind, tiny_decoder):
    module = ModuleType("example")
    exec(compile(example(kind), f"docs/plugins.md, {kind}", "exec"), module.__dict__)
    host = PluginHost()
    host.add(module, "example")
    (found,) = check_plugin(host, "example", tiny_decoder)
    assert found.kind == kind
    assert found.ok, found.reason
    assert not found.reason


def test_links_lead_somewhere():
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("page", "name", "module"),
    [("security", "bad-input", bad_input), ("security", "soak", soak), ("reliability", "mutants", mutants)],
)
def test_measured_figures_are_those_of_the_committed_file(page, name, module):
    kept = module.as_markdown(json.loads(module.RESULT.read_text(encoding="utf-8"))) if module.RESULT.is_file() else ""
    assert between((DOCS / f"{page}.md").read_text(encoding="utf-8"), name)[1] == kept
