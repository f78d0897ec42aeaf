"""A new plugin package: files that install, register a part of each wanted kind, and pass their own tests."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from dlr_core.errors import ConfigError, RunFolderError, unknown_name
from dlr_core.host import KINDS, PREFIX
from dlr_core.version import API_VERSION

USES = {
    "assistant": "dlr run --assistant $component",
    "control": "dlr eval RUN          # a row of every control table",
    "baseline": "dlr baseline $component",
    "reward": "dlr run --reward $component",
    "contrastive": "dlr run --contrastive $component",
    "scorer": "dlr run --scorer $component --set batch.decodes=4",
    "estimator": "dlr run --estimator $component",
    "space": "dlr run --set space=$component",
    "refiner": "dlr eval RUN --refiner $component",
    "decoder": "dlr run --set decoder.name=$component",
    "task": "dlr run --env dlr/Reasoning-v0 --set task.name=$component",
    "env": "dlr run --env $component",
    "logger": "dlr run --logger $component",
}
"""How a part of each kind is used by name."""
NEED_MODEL = ("baseline", "space", "refiner", "decoder")
"""Kinds whose own tests need a main model."""
PLUGIN = """\
\"\"\"What this package adds. The hooks are listed in dlr_core/hookspecs.py.\"\"\"

from dlr_core import hookimpl
$imports

DLR_API_VERSION = $api
"""
HOOK = """

@hookimpl
def $hook(register):
    \"\"\"One $kind.\"\"\"
    register("$component", $part)
"""


def write_package(name: str, folder: Path, kinds: Sequence[str] = ("reward",)) -> Path:
    """Write the package.

    Args:
        name: the plugin's name; ``dlr-name`` is its distribution, ``dlr_name`` its module.
        folder: where to.
        kinds: of parts, one of each.

    Raises:
        ConfigError: not a name that both a distribution and a module can have, or an unknown kind.
        RunFolderError: the folder is taken or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(f"expected lower-case letters, digits and hyphens, beginning with a letter; got {name!r}")
    strange = [kind for kind in kinds if kind not in KINDS]
    if strange:
        raise ConfigError(*(unknown_name("kind of part", kind, KINDS) for kind in strange))
    try:
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(f"{folder} is not empty; choose another --out")
        for path, text in _package(name, list(dict.fromkeys(kinds))).items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def uses(name: str, kinds: Sequence[str]) -> list[str]:
    """Commands that use the parts."""
    return [Template(USES[kind]).substitute(_names(name, kind)) for kind in kinds]


def _names(name: str, kind: str) -> dict[str, str]:
    """What a kind's part is called: in Python, and in the registry."""
    title = "".join(word.capitalize() for word in (*name.split("-"), kind))
    plain = {"name": name, "kind": kind, "part": title, "component": name}
    return plain if kind != "env" else plain | {"part": "gcd", "component": f"{name}/GCD-v0"}


def _package(name: str, kinds: Sequence[str]) -> dict[str, str]:
    """Every file's text by its path."""
    module, with_model = "dlr_" + name.replace("-", "_"), any(kind in NEED_MODEL for kind in kinds)
    parts = {kind: _names(name, kind) for kind in kinds}
    values = {
        "name": name,
        "module": module,
        "fixture": ", decoder" if with_model else "",
        "uses": "\n".join(f"    {use}" for use in uses(name, kinds)),
        "api": str(API_VERSION),
        "imports": "\n".join(f"from {module}.{kind} import {parts[kind]['part']}" for kind in sorted(kinds)),
    }
    hooks = [Template(HOOK).substitute(parts[kind], hook=PREFIX + kind) for kind in kinds]
    made = {
        "pyproject.toml": _filled("package/pyproject.toml", values),
        "README.md": _filled("package/README.md", values),
        ".github/workflows/test.yml": _filled("package/test.yml", values),
        f"{module}/__init__.py": '"""Parts for DeepLatent Reasoning."""\n',
        f"{module}/plugin.py": Template(PLUGIN).substitute(values) + "".join(hooks),
        "tests/conftest.py": _filled(f"package/conftest{'_with_model' * with_model}.py", values),
        "tests/test_plugin.py": _filled("package/test_plugin.py", values),
    }
    for kind in kinds:
        made[f"{module}/{kind}.py"] = _filled(f"parts/{kind}.py", parts[kind])
        made[f"tests/test_{kind}.py"] = _filled(f"laws/{kind}.py", parts[kind])
    return made


def _filled(path: str, values: Mapping[str, str]) -> str:
    text = files(__package__).joinpath(*f"{path}.in".split("/")).read_text(encoding="utf-8")
    return Template(text).substitute(values)
