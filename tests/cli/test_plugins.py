"""Plugin packages: installed as wheels beside the project's own, broken ones among them; new ones from a scaffold."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ACME = ROOT / "docs" / "examples" / "dlr-acme"
SMALL = ("--steps", "2", "--set", "space.num_latents=2", "--set", "space.latent_dim=4", "--set", "batch.questions=2",
         "--set", "batch.samples=2", "--set", "decoder.max_new_tokens=3", "--set", "eval.questions=3")  # fmt: skip

BROKEN = {
    "old": ("DLR_API_VERSION = 0\n", "DLR_API_VERSION is 0"),
    "grabby": (
        "from dlr_core import hookimpl\nDLR_API_VERSION = 1\n\n"
        "@hookimpl\ndef dlr_register_reward(register):\n    register('dual', dict)\n",
        "reward 'dual' belongs to 'builtin', so 'grabby' may not take it",
    ),
    "crashing": ("1 / 0\n", "ZeroDivisionError"),
}


def wheel(source: Path, out: Path) -> Path:
    """A wheel built without a network: hatchling is a test dependency."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    return next(out.glob("*.whl"))


class Environment:
    """A fresh virtual environment; heavy libraries come from the one the tests run in."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.packages = folder / "lib" / version / "site-packages"
        (self.packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, wheel: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", self.packages, wheel]
        subprocess.run(list(map(str, command)), check=True, timeout=300)

    def uninstall(self, *names: str) -> None:
        for name in names:
            for path in self.packages.glob(name):
                subprocess.run(["rm", "-r", str(path)], check=True)

    def dlr(self, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        code = "from dlr_cli.app import main; main()"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
        return subprocess.run(
            [str(self.python), "-c", code, *map(str, arguments)],
            capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=self.packages.parent,
        )  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The project's wheel, dlr-acme's, and one of several broken plugins."""
    folder = tmp_path_factory.mktemp("clean")
    made = Environment(folder / "venv")
    for source in (ROOT, ACME):
        made.install(wheel(source, folder / f"wheels-{source.name}"))
    for name, (text, _) in BROKEN.items():
        (made.packages / f"dlr_{name}.py").write_text(text)
        info = made.packages / f"dlr_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dlr-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dlr]\n{name} = dlr_{name}\n")
    return made


def test_the_project_is_the_wheel_and_not_the_checkout(environment):
    code = "import dlr_core, dlr_cli; print(dlr_core.__file__, dlr_cli.__file__)"
    out = subprocess.run([str(environment.python), "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert all(str(environment.packages) in path for path in out.stdout.split())


def test_a_run_uses_the_parts_of_a_package_by_name_beside_broken_ones(environment, tiny_model, tmp_path):
    done = environment.dlr(
        "run", "--assistant", "acme-linear", "--reward", "acme-brief", "--contrastive", "acme-margin",
        "--env", "dlr/Reasoning-v0", "--set", "task.name=acme-roman", "--main-model", tiny_model,
        "--out", tmp_path / "run", "--json", *SMALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 3
    for name, (_, reason) in BROKEN.items():
        lines = [line for line in done.stderr.splitlines() if f"plugin {name!r}" in line]
        assert len(lines) == 1
        assert reason in lines[0]
        assert f"dlr-{name} 1.0" in lines[0]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("acme_margin" in row for row in rows)


def test_plugins_are_listed_checked_and_restricted(environment):
    rows = {row["name"]: row for row in json.loads(environment.dlr("plugins", "list", "--json").stdout)}
    assert set(rows) == {"builtin", "envs", "acme", *BROKEN}
    assert rows["acme"]["distribution"] == "dlr-acme 0.1.0"
    assert rows["acme"]["adds"]["assistant"] == ["acme-linear"]
    assert rows["crashing"]["skipped"].startswith("ZeroDivisionError")
    done = environment.dlr("plugins", "check", "acme", "--json")
    assert done.returncode == 0, done.stdout
    assert {finding["name"] for finding in json.loads(done.stdout)} == {
        "acme-linear", "acme-brief", "acme-margin", "acme-roman",
    }  # fmt: skip
    only = json.loads(environment.dlr("plugins", "list", "--json", DLR_PLUGINS="acme,nobody").stdout)
    assert {row["name"] for row in only} == {"builtin", "envs", "acme", "nobody"}
    none = json.loads(environment.dlr("plugins", "list", "--json", DLR_PLUGINS="").stdout)
    assert {row["name"] for row in none} == {"builtin", "envs"}


def test_uninstalling_leaves_everything_else_working(environment):
    environment.uninstall("dlr_acme*")
    done = environment.dlr("run", "--reward", "acme-brief")
    assert done.returncode == 2
    assert "error: no reward named 'acme-brief'" in done.stderr
    assert environment.dlr("list", "reward").returncode == 0


def test_a_scaffold_installs_and_is_found(dlr, tmp_path):
    made = Environment(tmp_path / "venv")
    made.install(wheel(ROOT, tmp_path / "own"))
    done = made.dlr("plugins", "new", "my-parts", "--kind", "reward", "--kind", "space", "--out", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "pip install" in done.stdout
    made.install(wheel(tmp_path / "mine", tmp_path / "wheels"))
    (found,) = (row for row in json.loads(made.dlr("plugins", "list", "--json").stdout) if row["name"] == "my-parts")
    assert found["adds"] == {"reward": ["my-parts"], "space": ["my-parts"]}
    assert (tmp_path / "mine" / ".github" / "workflows" / "test.yml").is_file()
    code, _, err = dlr("plugins", "new", "my-parts", "--out", tmp_path / "mine")
    assert code == 2
    assert "not empty" in err
    code, _, err = dlr("plugins", "new", "My Parts", "--out", tmp_path / "other")
    assert code == 2
    assert "lower-case" in err


def test_a_plugin_that_breaks_a_contract_fails_the_check(dlr, monkeypatch, host):
    class Rude:
        """A reward that is not a number."""

        def __call__(self, sample):
            return float("nan")

    class Plugin:
        DLR_API_VERSION = 1

    from dlr_core import hookimpl

    @hookimpl
    def dlr_register_reward(self, register):
        register("rude", Rude)

    Plugin.dlr_register_reward = dlr_register_reward
    host.add(Plugin(), "rude")
    monkeypatch.setattr("dlr_cli.host.load_host", lambda: host)
    code, out, _ = dlr("plugins", "check", "rude")
    assert code == 1
    assert "FAIL reward rude: expected a finite number" in out
    code, _, err = dlr("plugins", "check", "nobody")
    assert code == 2
    assert "error:" in err
