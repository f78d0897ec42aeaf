"""A new plugin package: files that install, register one part, and pass their own test."""

import re
from pathlib import Path
from string import Template

from dlr_core.errors import ConfigError, RunFolderError
from dlr_core.version import API_VERSION

FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "dlr-$name"
version = "0.1.0"
description = "Parts for DeepLatent Reasoning"
requires-python = ">=3.11"
dependencies = ["deeplatent-reasoning", "pydantic>=2.7"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points.dlr]
$name = "$module.plugin"

[tool.hatch.build.targets.wheel]
packages = ["$module"]
""",
    "README.md": """\
# dlr-$name

Parts for DeepLatent Reasoning. After `pip install .`:

    dlr plugins list
    dlr plugins check $name
    dlr run --reward $name
""",
    "$module/__init__.py": '"""Parts for DeepLatent Reasoning."""\n',
    "$module/plugin.py": '''\
"""What this package adds. The hooks are listed in dlr_core/hookspecs.py."""

from dlr_core import hookimpl
from $module.reward import ${title}Reward

DLR_API_VERSION = $api


@hookimpl
def dlr_register_reward(register):
    """One reward."""
    register("$name", ${title}Reward)
''',
    "$module/reward.py": '''\
"""A reward."""

from pydantic import BaseModel, ConfigDict, Field


class ${title}Reward:
    """Right answers, worth less the longer they are."""

    class Options(BaseModel):
        """Settings: `dlr run --reward $name --set reward.per_token=0.02`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        per_token: float = Field(0.01, ge=0, description="What one completion token costs.")

    def __init__(self, options):
        self.options = options

    def __call__(self, sample):
        """The reward of one decoded chain (dlr_core.records.Sample)."""
        return sample.correct / (1 + self.options.per_token * sample.tokens)
''',
    "tests/test_plugin.py": '''\
"""Every part keeps its contract."""

import $module.plugin as plugin
from dlr_core import PluginHost
from dlr_core.testing import check_plugin


def test_every_part_keeps_its_contract():
    host = PluginHost()
    host.add(plugin, "$name")
    for finding in check_plugin(host, "$name"):
        assert finding.ok, f"{finding.kind} {finding.name}: {finding.reason}"


def test_shorter_answers_are_worth_more():
    host = PluginHost()
    host.add(plugin, "$name")
    reward = host.create("reward", "$name", {"per_token": 0.5})

    class Sample:
        correct = 1.0
        tokens = 2

    assert reward(Sample) == 0.5
''',
    ".github/workflows/test.yml": """\
name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: { python-version: "3.11" }
      - run: pip install .[test]
      - run: pytest
""",
}


def write_package(name: str, folder: Path) -> Path:
    """Write the package.

    Args:
        name: the plugin's name; ``dlr-name`` is its distribution, ``dlr_name`` its module.
        folder: where to.

    Raises:
        ConfigError: not a name that both a distribution and a module can have.
        RunFolderError: the folder is taken or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(f"expected lower-case letters, digits and hyphens, beginning with a letter; got {name!r}")
    module = "dlr_" + name.replace("-", "_")
    title = "".join(part.capitalize() for part in name.split("-"))
    values = {"name": name, "module": module, "title": title, "api": API_VERSION}
    try:
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(f"{folder} is not empty; choose another --out")
        for path, text in FILES.items():
            file = folder / Template(path).substitute(values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(values), encoding="utf-8")
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder
