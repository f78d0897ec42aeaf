"""No shipped file runs what it was given: no pickle, no eval, no shell, no remote code, no unchecked archives."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path
    for folder in ("dlr_core", "plugins/dlr_plugins", "envs/dlr_envs", "cli/dlr_cli")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}
"""Modules that load code; tarfile because nothing here needs it."""
RUNS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"system", "popen"}


def dangers(source: str) -> list[str]:
    """What a file does that may run or overwrite what it should not, line by line."""
    return [f"{node.lineno}: {what}" for node in ast.walk(ast.parse(source)) for what in _of(node)]


def _of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (f"imports {name}" for name in names if name.partition(".")[0] in PICKLES)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _is(value, False):
                yield "trusts remote code"
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in RUNS:
        yield f"calls {name}"
    if name.startswith("os.") and last in SHELLS:
        yield f"calls {name}"
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        yield "torch.load without weights_only"
    if "trust_remote_code" in given and not _is(given["trust_remote_code"], False):
        yield "trusts remote code"
    if "shell" in given or "allow_pickle" in given:
        yield "shell or allow_pickle"
    if last in ("extractall", "extract", "unpack_archive"):
        yield f"unpacks with {last}"
    if last in ("recv", "send") and "pipe" in name.lower():
        yield f"{name} sends pickles"
    if last == "Environment" and not _is(given.get("autoescape"), True):
        yield "a template that does not escape"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import tarfile", "eval('1')", "exec(text)", "__import__('os')",
        "torch.load(path)", "torch.load(path, weights_only=False)", "os.system('ls')", "subprocess.run(x, shell=True)",
        "from_pretrained(x, trust_remote_code=True)", "from_pretrained(x, trust_remote_code=flag)",
        "options = {'trust_remote_code': True}", "archive.extractall(folder)", "shutil.unpack_archive(x)",
        "numpy.load(x, allow_pickle=True)", "pipe.recv()", "self.pipe.send(x)", "jinja2.Environment()",
        "Environment(autoescape=False)",
    ],
)  # fmt: skip
def test_the_scan_sees_what_it_is_for(source: str) -> None:
    assert len(dangers(source)) == 1


def test_the_scan_lets_pass_what_is_harmless() -> None:
    harmless = (
        "import re\nre.compile('x')\nmodel.eval()\npipe.recv_bytes(3)\ntorch.load(x, weights_only=True)\n"
        "from_pretrained(x, trust_remote_code=False)\nEnvironment(autoescape=True)\narchive.open(name)\n"
    )
    assert dangers(harmless) == []


def test_no_shipped_file_runs_what_it_was_given() -> None:
    assert len(FILES) > 100
    found = {str(path.relative_to(ROOT)): dangers(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}
