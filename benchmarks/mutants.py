"""docs/reliability.md: is a formula tested? Each is changed in one place at a time, and its tests should fail.

python benchmarks/mutants.py                 # every area
python benchmarks/mutants.py --only scorers  # one area; other figures stay
python benchmarks/mutants.py render          # the page from the figures that are kept

cosmic-ray makes the changes (mutants): another operator of its family, a number one more or one less, and / or, not,
True / False, a sign or decorator left out, a loop that never runs. Left out is what no test could let pass and whose
deaths would flatter: arithmetic as bits, annotations, and what does not compile.

A mutant is only ever in memory: this process has imported what is not ours, and a fork of it imports ours from a copy
of the tree, the mutant in its module's place, and runs the area's tests until one fails. So none costs the imports,
none can be left in a file, and the tree can be worked on meanwhile. Killed: a test failed, or they took ten times as
long as they do without a mutant. Broken, and not counted: the module cannot be imported.

An ended run goes on where it was (runs/mutants.jsonl knows outcomes by mutant, tests and sources). Writes
benchmarks/mutants.json. `make mutants` is the first of these, with ONLY=scorers the second.
"""

import argparse
import ast
import contextlib
import difflib
import gc
import hashlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from documented import DOCS, document

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).resolve().with_name("mutants.json")
SESSION = ROOT / "runs" / "mutants.jsonl"
PLUGINS = "plugins/dlr_plugins"
PACKAGES = {"dlr_core": ".", "dlr_plugins": "plugins", "dlr_envs": "envs", "dlr_cli": "cli"}
FOREIGN = (
    "accelerate", "gymnasium", "hypothesis", "jinja2", "math_verify", "pydantic", "pytest", "reasoning_gym", "rich",
    "stable_baselines3", "sympy", "torch._dynamo", "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama", "xdist.plugin",
)  # fmt: skip
"""What tests and our modules import and take long to; no more than a matter of speed."""
AREAS = {
    "density": (["dlr_core/density.py"], ["core/test_density.py"]),
    "selection": (["dlr_core/selection.py"], ["core/test_selection.py"]),
    "advantages": (["dlr_core/advantages.py"], ["core/test_advantages.py", "plugins/test_estimators.py"]),
    "estimators": (
        [f"{PLUGINS}/estimators/*.py"],
        [
            "plugins/test_options.py",
            "plugins/test_estimators.py::test_partly_decoded_weights_by_hand",
            "plugins/test_estimators.py::test_of_several_completions_each_distinct_success_is_taught_and_no_wrong_one",
            "plugins/test_estimators.py::test_score_stops_at_the_clip_per_latent_and_logs_how_often",
            "plugins/test_estimators.py",
        ],
    ),
    "contrastive": (
        [f"{PLUGINS}/contrastive/{name}.py" for name in ("bidirectional", "none", "supcon", "uniformity")],
        ["plugins/test_options.py", "plugins/test_contrastive.py", "plugins/test_spread.py"],
    ),
    "laser": ([f"{PLUGINS}/contrastive/laser.py"], ["plugins/test_options.py", "plugins/test_laser.py"]),
    "scorers": ([f"{PLUGINS}/scorers/*.py"], ["plugins/test_options.py", "plugins/test_scorers.py"]),
    "rewards": (
        [f"{PLUGINS}/rewards/*.py"],
        [f"plugins/test_{name}.py" for name in ("options", "rewards", "recommendation", "decisive")],
    ),
}
"""What is changed, and the tests (in tests/) that should see it; the quickest first."""
FAMILIES = [
    ("Binary", ("Add", "Sub", "Mul", "Div")),
    ("Binary", ("Div", "FloorDiv", "Mod")),
    ("Binary", ("Mul", "Pow")),
    ("Binary", ("BitOr", "BitAnd", "BitXor")),
    ("Comparison", ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")),
    ("Comparison", ("Is", "IsNot")),
]
"""Operators that take each other's place."""
OPERATORS = [
    *(f"Replace{kind}Operator_{one}_{two}" for kind, of in FAMILIES for one, two in itertools.permutations(of, 2)),
    *(f"ReplaceUnaryOperator_Delete_{name}" for name in ("USub", "Invert", "Not")),
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop",
]  # fmt: skip
"""cosmic-ray's names of what is tried."""
BROKEN = 77
MEMORY = 8 << 30
"""Address space of a trial, in bytes: a mutant may ask for any amount."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change."""

    file: str
    operator: str
    source: str
    line: int
    was: str
    now: str


def copied(root: Path, tree: Path) -> Path:
    """A copy of all that tests read."""
    for name in ("dlr_core", "plugins", "envs", "cli", "tests", "benchmarks", "docs"):
        shutil.copytree(root / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tree)
    return tree


def annotated(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end: they are compared by mypy, and not run."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.expr):
                spans.append(((part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)))
    return spans


def mutants(root: Path, file: str) -> Iterator[Mutant]:
    """Every mutant of a file that compiles."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = (root / file).read_text(encoding="utf-8")
    spans, nodes = annotated(source), list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for number, place in enumerate(places):
            if any(first <= place < last for first, last in spans):
                continue
            changed = mutate_code(source, operator, number)
            with contextlib.suppress(SyntaxError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(changed, file, "exec")
                yield Mutant(file, name, changed, *difference(source, changed))


def difference(source: str, changed: str) -> tuple[int, str, str]:
    """The first place that differs: its line, and what it was and is."""
    before, after = source.splitlines(), changed.splitlines()
    code = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    _, first, last, begin, end = next(one for one in code if one[0] != "equal" and any(before[one[1] : one[2]]))
    number = next(number for number in range(first, last) if before[number].strip())
    was, now = before[number:last], after[begin:end]
    return number + 1, "; ".join(map(str.strip, was)), "; ".join(map(str.strip, now))


class Replaced(importlib.machinery.SourceFileLoader):
    """Loads a module from a text instead of its file; also finds it, before anybody else does."""

    def __init__(self, root: Path, file: str, source: str) -> None:
        parts = Path(file).with_suffix("").parts
        package = next(number for number, part in enumerate(parts) if part in PACKAGES)
        super().__init__(".".join(parts[package:]), str(root / file))
        self.source = source

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Its own specification."""
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> types.CodeType:
        """Never from, or into, a file of compiled code."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(self.source, self.path, "exec")


class Trials:
    """Runs tests on mutants, each in a fork of this process."""

    def __init__(self, root: Path, room: Path) -> None:
        self.root, self.room = root, room
        loaded = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
        if loaded:
            raise RuntimeError(
                f"expected to begin without our modules, got {loaded[0]}: a fork would not see the mutant"
            )

    def run(self, tests: Sequence[str], file: str, source: str, limit: float) -> str:
        """killed, survived, timeout or broken."""
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.setitimer(signal.ITIMER_REAL, limit)  # SIGALRM ends a process that has no handler for it
                code = self._attempt(tests, Replaced(self.root, file, source))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        if os.WIFSIGNALED(status):
            return "timeout" if os.WTERMSIG(status) == signal.SIGALRM else "killed"
        return {0: "survived", BROKEN: "broken"}.get(os.WEXITSTATUS(status), "killed")

    def _attempt(self, tests: Sequence[str], loader: Replaced) -> int:
        """What the fork does; its exit code."""
        with (self.room / "said").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(self.root)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.path[:0] = [str(self.root / folder) for folder in PACKAGES.values()]
        sys.meta_path.insert(0, loader)  # type: ignore[arg-type]
        try:
            importlib.import_module(loader.name)
        except BaseException:
            traceback.print_exc()
            return BROKEN
        import pytest

        flags = ["-x", "--assert=plain", "-p", "no:cacheprovider", f"--basetemp={self.room / 'pytest'}"]
        return int(pytest.main([*flags, *tests]))


def digest(root: Path, tests: Sequence[str]) -> str:
    """Of all that an outcome depends on, the mutant apart."""
    sources = [path for name, folder in PACKAGES.items() for path in (root / folder / name).rglob("*.py")]
    found = hashlib.sha256()
    asked = {root / test.partition("::")[0] for test in tests}
    for path in sorted([*sources, *asked, *(root / "tests").rglob("conftest.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()


def try_area(root: Path, room: Path, tests: Sequence[str], chosen: Sequence[Mutant], session: Path) -> list[str]:
    """Each mutant's outcome, from the session where that has it."""
    trials, about = Trials(root, room), digest(root, tests)
    known: dict[str, str] = {}
    for line in session.read_text(encoding="utf-8").splitlines() if session.is_file() else []:
        with contextlib.suppress(ValueError):  # torn, where a run was killed
            key, outcome = json.loads(line)
            known[key] = outcome
    keys = [hashlib.sha256((about + one.file + one.source).encode()).hexdigest() for one in chosen]
    if all(key in known for key in keys):
        return [known[key] for key in keys]
    file, began = chosen[0].file, time.monotonic()
    if trials.run(tests, file, (root / file).read_text(encoding="utf-8"), 600) != "survived":
        raise SystemExit(f"error: the tests fail without a mutant:\n{(room / 'said').read_text()[-2000:]}")
    limit = 10 * (time.monotonic() - began)
    session.parent.mkdir(exist_ok=True)
    with session.open("a", encoding="utf-8") as log:
        for key, one in zip(keys, chosen, strict=True):
            if key not in known:
                known[key] = trials.run(tests, one.file, one.source, limit)
                print(json.dumps([key, known[key]]), file=log, flush=True)
                if known[key] == "survived":
                    print(f"  {one.file}:{one.line}  {one.was}  →  {one.now}", flush=True)
    return [known[key] for key in keys]


def sampled(every: Sequence[Mutant], most: int | None) -> list[Mutant]:
    """As many as that of an area's mutants, in their order, and the same ones whenever it is asked."""
    if most is None or len(every) <= most:
        return list(every)
    return [every[number] for number in sorted(random.Random(0).sample(range(len(every)), most))]


def summary(chosen: Sequence[Mutant], outcomes: Sequence[str], possible: int) -> dict[str, Any]:
    """An area's figures, and its survivors."""
    counts = {name: outcomes.count(name) for name in ("killed", "timeout", "survived", "broken")}
    judged = len(outcomes) - counts["broken"]
    share = (counts["killed"] + counts["timeout"]) / judged if judged else None
    left = [one for one, outcome in zip(chosen, outcomes, strict=True) if outcome == "survived"]
    survivors = [{"at": f"{one.file}:{one.line}", "was": one.was, "now": one.now} for one in left]
    return {"possible": possible, "tried": len(outcomes), **counts, "share": share, "survivors": survivors}


def as_markdown(result: dict[str, Any]) -> str:
    """The figures as docs/reliability.md has them."""
    head = (
        "| area | mutants | tried | killed | of them by time | survived | broken | killed, % |\n|---"
        + "|---:" * 7
        + "|\n"
    )
    areas = result["areas"]
    keys = ("possible", "tried", "killed", "timeout", "survived", "broken")
    total = {key: sum(area[key] for area in areas.values()) for key in keys}
    rows = []
    for name, area in [*areas.items(), ("**all**", total)]:
        killed, judged = area["killed"] + area["timeout"], area["tried"] - area["broken"]
        figures = [area["possible"], area["tried"], killed, area["timeout"], area["survived"], area["broken"]]
        share = f"{100 * killed / judged:.1f}" if judged else ""
        rows.append("| " + " | ".join([name, *map(str, figures), share]) + " |")
    return head + "\n".join(rows)


def render() -> None:
    """Write the page from the figures that are kept."""
    document(DOCS / "reliability.md", "mutants", as_markdown(json.loads(RESULT.read_text(encoding="utf-8"))))


def main() -> None:
    """Try what is asked for, keep the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "render"), default="all")
    parser.add_argument("--only", action="append", choices=list(AREAS), help="one area; repeatable")
    parser.add_argument(
        "--most", type=int, help="mutants of an area that are tried, drawn by a fixed seed; default: all"
    )
    asked = parser.parse_args()
    areas = json.loads(RESULT.read_text(encoding="utf-8"))["areas"] if RESULT.is_file() else {}
    if asked.what == "all":
        for name in FOREIGN:
            importlib.import_module(name)
        gc.freeze()  # what is imported now is no fork's garbage
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves nothing behind either
        with tempfile.TemporaryDirectory(prefix="dlr-mutants-") as folder:
            room = Path(folder)
            tree = copied(ROOT, room / "tree")
            for name in asked.only or AREAS:
                globs, tests = AREAS[name]
                files = [path.relative_to(tree) for glob in globs for path in sorted(tree.glob(glob))]
                every = [one for file in files for one in mutants(tree, str(file))]
                chosen = sampled(every, asked.most)
                print(f"{name}: {len(chosen)} of {len(every)} mutants", flush=True)
                outcomes = try_area(tree, room, [f"tests/{test}" for test in tests], chosen, SESSION)
                areas[name] = summary(chosen, outcomes, len(every))
                result = {"areas": {name: areas[name] for name in AREAS if name in areas}}
                RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                render()
    render()


if __name__ == "__main__":
    main()
