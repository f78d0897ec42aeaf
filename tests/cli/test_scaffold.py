"""New plugin packages: every kind of part imports, registers, keeps its contract, passes its own tests, and runs."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from dlr_cli.scaffold import USES, write_package

from dlr_core import PluginHost
from dlr_core.config import resolve
from dlr_core.host import KINDS
from dlr_core.pipeline import build_trainer, env_kwargs
from dlr_core.testing import check_plugin

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [str(ROOT / folder) for folder in (".", "plugins", "envs", "cli")]


@pytest.fixture
def scaffold(tmp_path, monkeypatch):
    """Write a package of these kinds and import its plugin."""

    def make(name, *kinds):
        folder = write_package(name, tmp_path / name, kinds)
        monkeypatch.syspath_prepend(folder)
        return folder, import_module(f"dlr_{name.replace('-', '_')}.plugin")

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_alone_registers_one_part_that_keeps_its_contract(kind, scaffold, tiny_decoder):
    folder, plugin = scaffold(f"lone-{kind}", kind)
    host = PluginHost()
    host.add(plugin, f"lone-{kind}")
    (found,) = check_plugin(host, f"lone-{kind}", tiny_decoder)
    assert (found.kind, found.ok, found.reason) == (kind, True, "")
    assert USES[kind].partition(" ")[0] == "dlr"
    readme = (folder / "README.md").read_text()
    assert USES[kind].replace("$component", found.name) in readme
    assert {path.name for path in (folder / "tests").iterdir()} == {"conftest.py", "test_plugin.py", f"test_{kind}.py"}
    assert (folder / ".github" / "workflows" / "test.yml").is_file()


def test_the_packages_own_tests_pass(tmp_path):
    """One package of every kind, and one that needs no main model."""
    packages = [write_package("many", tmp_path / "many", KINDS), write_package("one", tmp_path / "one")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
         *(str(folder / "tests") for folder in packages)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, packages), *SOURCES])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"{1 + len(KINDS) + 2} passed" in done.stdout


def test_parts_of_every_kind_make_a_run_together(scaffold, host, tiny_model, tmp_path):
    _, plugin = scaffold("together", *KINDS)
    host.add(plugin, "together")
    config = resolve(
        {
            "env": "dlr/Reasoning-v0", "task": {"name": "together"}, "steps": 1, "minutes": None,
            "decoder": {"name": "together", "model": str(tiny_model), "longest": 3},
            "space": {"name": "together", "num_latents": 2, "latent_dim": 4},
            **dict.fromkeys(("assistant", "reward", "contrastive", "scorer", "estimator"), "together"),
            "loggers": ["together"], "batch": {"questions": 2, "samples": 3, "decodes": 2},
            "replay": {"search": 0}, "probe": {"every": 0},
        },
        host,
    )  # fmt: skip
    metrics = build_trainer(config, host).step()
    assert {"latent_size", "scorer_mean_reward", "imitated"} <= metrics.keys()
    assert metrics["tokens"] <= 3 * metrics["decodes"] == 12
    spec = env_kwargs(resolve({"env": "together/GCD-v0", "decoder": {"model": str(tiny_model)}}, host), host)
    assert (spec["task"], spec["max_new_tokens"]) == ("reasoning-gym:gcd", 8)


def test_kinds_are_named_on_the_command_line(dlr, tmp_path):
    code, out, _ = dlr("plugins", "new", "pair", "--kind", "task", "--kind", "space", "--out", tmp_path / "pair")
    assert code == 0
    assert "dlr run --env dlr/Reasoning-v0 --set task.name=pair" in out
    assert "dlr run --set space=pair" in out
    assert {path.name for path in (tmp_path / "pair" / "dlr_pair").iterdir()} == {
        "__init__.py", "plugin.py", "task.py", "space.py",
    }  # fmt: skip
    code, _, err = dlr("plugins", "new", "pair", "--kind", "rewards", "--out", tmp_path / "other")
    assert code == 2
    assert "error: no kind of part named 'rewards'; did you mean 'reward'?" in err
    assert not (tmp_path / "other").exists()
    code, out, _ = dlr("plugins", "new", "--help")
    assert code == 0
    assert all(kind in out for kind in KINDS)
