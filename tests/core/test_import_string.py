"""Parts registered by where they are: listed without being imported, imported when used."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlr_core import PluginError, PluginHost, hookimpl
from dlr_core.health import plugins as health_of_plugins
from dlr_core.host import KINDS
from dlr_core.testing import check_plugin

SOURCE = """
raise_at_import = {trouble}
class Terse:
    \"\"\"Pays for brevity.

    More.
    \"\"\"
    def __call__(self, sample):
        return float(sample.correct)

class Heir(Terse):
    pass

number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module that exists for one test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(trouble: str = "None") -> str:
        name = f"far_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(SOURCE.format(trouble=trouble), encoding="utf-8")
        return name

    yield write
    for name in [name for name in sys.modules if name.startswith("far_")]:
        del sys.modules[name]


def host_with(**rewards: Any) -> PluginHost:
    class Plugin:
        DLR_API_VERSION = 1

        @hookimpl
        def dlr_register_reward(self, register: Any) -> None:
            for name, factory in rewards.items():
                register(name, factory)

    host = PluginHost()
    host.add(Plugin(), "far")
    return host


def test_a_part_is_named_and_summarised_without_being_imported_and_imported_when_it_is_used(package: Any) -> None:
    module = package()
    host = host_with(terse=f"{module}:Terse")
    assert host.names("reward") == ["terse"]
    assert host.find("reward", "terse").summary == "Pays for brevity."
    assert module not in sys.modules
    made = host.create("reward", "terse")
    assert type(made) is sys.modules[module].Terse
    assert host.find("reward", "terse").factory is sys.modules[module].Terse


def test_a_docstring_that_is_inherited_is_found_as_well(package: Any) -> None:
    assert host_with(heir=f"{package()}:Heir").find("reward", "heir").summary == "Pays for brevity."


def test_a_broken_module_is_named_where_its_part_is_used_and_spoils_no_other(package: Any) -> None:
    module = package(trouble="1 / 0")

    class Sound:
        """Is here."""

    host = host_with(terse=f"{module}:Terse", sound=Sound)
    assert [entry.summary for entry in host.entries("reward")] == ["Is here.", "Pays for brevity."]
    assert isinstance(host.create("reward", "sound"), Sound)
    line = f"reward 'terse' of plugin 'far': cannot import {module}:Terse: ZeroDivisionError: division by zero"
    with pytest.raises(PluginError) as told:
        host.create("reward", "terse")
    assert str(told.value) == line
    finding = next(finding for finding in check_plugin(host, "far") if finding.name == "terse")
    assert (finding.ok, finding.reason) == (False, line)
    assert host.find("reward", "terse").summary == "Pays for brevity."
    assert [(check.state, check.found) for check in health_of_plugins(host) if check.name == "reward terse"] == [
        ("warning", line)
    ]


@pytest.mark.parametrize(
    ("name", "reason"), [("Ters", "has no attribute 'Ters'"), ("number", "expected a class or function")]
)
def test_what_is_not_there_or_no_factory_is_refused_when_it_is_used(package: Any, name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        host_with(terse=f"{package()}:{name}").create("reward", "terse")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no.such.module:Terse", "there is no module 'no.such.module'"),
        ("json", "expected a class, a function or 'package.module:Name'"),
        ("json:", "expected a class, a function or 'package.module:Name'"),
        ("json:a b", "expected a class, a function or 'package.module:Name'"),
        ("../json:loads", "expected a class, a function or 'package.module:Name'"),
    ],
)
def test_where_nothing_can_be_is_refused_when_the_plugin_is_loaded(text: str, reason: str) -> None:
    with pytest.raises(PluginError, match=f"reward 'terse': {reason}"):
        host_with(terse=text)


def test_the_summary_of_every_built_in_part_is_the_first_line_of_its_docstring() -> None:
    host = PluginHost.from_entry_points()
    for kind in KINDS:
        for entry in host.entries(kind):
            assert entry.summary == (entry.factory.__doc__ or "").strip().partition("\n")[0] != ""


def test_listing_imports_no_part() -> None:
    heavy = ("torch", "transformers", "reasoning_gym", "stable_baselines3", "accelerate", "peft")
    code = (
        "import sys; from dlr_cli.commands.listing import listing; listing(None, False); "
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "small-gpt" in done.stdout
    assert done.stderr.strip() == "[]"
