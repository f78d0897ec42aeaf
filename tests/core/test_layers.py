"""The import graph of the four packages, and what no shipped file may hold."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "dlr_core": ROOT / "dlr_core",
    "dlr_plugins": ROOT / "plugins" / "dlr_plugins",
    "dlr_envs": ROOT / "envs" / "dlr_envs",
    "dlr_cli": ROOT / "cli" / "dlr_cli",
}
MAY_IMPORT = {
    "dlr_core": set(),
    "dlr_plugins": {"dlr_core"},
    "dlr_envs": {"dlr_core"},
    "dlr_cli": {"dlr_core", "dlr_plugins", "dlr_envs"},
}
FILES = [(package, path) for package, folder in FOLDERS.items() for path in sorted(folder.rglob("*.py"))]


def imported_siblings(source: str, package: str) -> set[str]:
    """Other packages of the project that a file imports: by statement anywhere in it, or by a string that names one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            head = node.value.partition(":")[0]
            if all(part.isidentifier() for part in head.split(".")):
                found.add(head.partition(".")[0])
    return found & (FOLDERS.keys() - {package})


def asserts(source: str) -> list[int]:
    """Line numbers of assert statements."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def test_the_checks_see_what_they_are_for() -> None:
    hidden = "def f():\n    from dlr_envs.build import x\n    import dlr_cli.app\n    load('dlr_plugins.tasks:GSM8K')\n"
    assert imported_siblings(hidden, "dlr_core") == {"dlr_envs", "dlr_cli", "dlr_plugins"}
    assert imported_siblings("import dlr_core\n'''dlr_envs is elsewhere.'''", "dlr_core") == set()
    assert asserts("if x:\n    assert y\n") == [2]


@pytest.mark.parametrize("package", FOLDERS)
def test_every_package_is_where_the_layout_says(package: str) -> None:
    assert (FOLDERS[package] / "__init__.py").is_file()
    if package != "dlr_core":
        assert not (FOLDERS[package].parent / "__init__.py").exists()


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_imports_only_the_layers_below_it(package: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): extra
        for owner, path in FILES
        if owner == package
        and (extra := imported_siblings(path.read_text(encoding="utf-8"), package) - MAY_IMPORT[package])
    }
    assert wrong == {}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for _, path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_shipped_code_raises_and_never_asserts() -> None:
    found = {str(path.relative_to(ROOT)): asserts(path.read_text(encoding="utf-8")) for _, path in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    assert [str(path) for _, path in FILES if path.stem in ("utils", "helpers", "common", "misc")] == []
