"""What bad input is given to: one function for each way in, in this process. Each either works or refuses."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlr_envs  # noqa: F401  (registers the ids)
import gguf
import gymnasium
import hostile
import numpy as np
import torch
from dlr_cli.curriculum import read_plan
from dlr_cli.report.page import render
from dlr_plugins.decoders.gguf_header import check_gguf
from dlr_plugins.tasks.answers import last_number, normalise_number
from dlr_plugins.tasks.gsm8k import GSM8K
from dlr_plugins.tasks.gymcheck import SYMBOLIC, judged
from dlr_plugins.tasks.mathcheck import equivalent
from dlr_plugins.tasks.reasoning import ReasoningGym
from dlr_plugins.tasks.recommendation import Recommendation
from hypothesis import strategies as st

from dlr_core import DLRPipeline, PluginHost
from dlr_core.artefact import load_space, save_space
from dlr_core.assignments import COMPONENTS, merge, parse_assignment, read_toml
from dlr_core.config import RunConfig, resolve
from dlr_core.records import Item
from dlr_core.rundir import read_manifest
from dlr_core.saved import read_table
from dlr_core.sweep import expand, parse_part

SIZES = {"num_latents": 2, "latent_dim": 4}
ROW = {"question": "Ada had 3 marbles and found 2 more. How many?", "answer": "3 + 2 = 5.\n#### 5"}
USER = {"history": ["tea"], "candidates": ["cup", "pot"], "chosen": "pot"}
SECONDS = 2.0
"""Of one judgement."""


@dataclass(frozen=True)
class Family:
    """One way in."""

    name: str
    count: int
    """Inputs of the whole run."""
    inputs: st.SearchStrategy[Any]
    attack: Callable[[Any], object]


def setting_paths() -> list[str]:
    """Dotted names of all settings outside the components."""
    found = []
    for name, field in RunConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        found += [f"{name}.{key}" for key in inner] or [name]
    return found


def tiny_gguf(path: Path) -> bytes:
    """A GGUF file that is whole, though no model: some pairs of every kind, two tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_token_list(["a", "b", "c"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float32("some.float", 0.5)
    writer.add_tensor("token_embd.weight", np.zeros((3, 8), np.float32))
    writer.add_tensor("output.weight", np.zeros((3, 8), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


class Workshop:
    """Everything that is attacked: a tiny model, environments on it, and whole files to damage."""

    def __init__(self, room: Path, model: Path, run: Path) -> None:
        """``room`` is where files are written, ``run`` the folder of a finished run on ``model``."""
        self.room, self.model, self.run = room, model, run
        self.host = PluginHost.from_entry_points()
        self.decoder = self.host.create("decoder", "hf", {"model": str(model)})
        rows = [{**ROW, "question": f"{ROW['question']} {number}"} for number in range(20)]
        self.data = self.file("data.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        common = {"decoder": self.decoder, "task_kwargs": {"path": str(self.data)}, "max_new_tokens": 2, **SIZES}
        self.single = gymnasium.make("dlr/GSM8K-v0", disable_env_checker=True, **common)
        self.vector = gymnasium.make_vec("dlr/GSM8K-v0", num_envs=2, **common)
        self.engine = self.vector.unwrapped.engine
        self.space = room / "space"
        options = self.engine.space.options.model_dump(mode="json")
        save_space(self.engine.space, self.space, name="kv", options=options, digest=self.decoder.fingerprint())
        self.shared = room / "shared"
        DLRPipeline.from_run(run, host=self.host).save_pretrained(self.shared)
        self.gguf = tiny_gguf(room / "whole.gguf")
        self.generators: dict[str, tuple[ReasoningGym, Item]] = {}
        self.changed: dict[Path, str] = {}
        self.parts = {name: self.host.names(name) for name in COMPONENTS}

    def file(self, name: str, content: bytes) -> Path:
        """Write a file into the room."""
        path = self.room / name
        path.write_bytes(content)
        return path

    # ---- ways in -------------------------------------------------------------------------------------------------

    def assignments(self, texts: list[str]) -> None:
        """Several --set."""
        tree: dict[str, Any] = {}
        for text in texts:
            merge(tree, *parse_assignment(text))
        resolve(tree, self.host)

    def toml(self, content: bytes) -> None:
        """A config file, which may also be taken for a sweep or a curriculum."""
        path = self.file("config.toml", content)
        tree = read_toml(path)
        if "variants" in tree or "grid" in tree:
            for row in expand(tree)[:3]:
                resolve(row.values, self.host)
        elif "tasks" in tree:
            read_plan(str(path), {}, self.host)
        else:
            resolve(tree, self.host)

    def gsm8k(self, content: bytes) -> None:
        """A data file, and its answers against a number."""
        task = GSM8K(GSM8K.Options(path=str(self.file("odd.jsonl", content))))
        for split in ("train", "validation", "test"):
            if task.size(split):
                task.score(task.item(split, 0), "It is 5.", True)

    def recommendation(self, content: bytes) -> None:
        """Another data file."""
        Recommendation(Recommendation.Options(path=str(self.file("users.jsonl", content))))

    def numbers(self, text: str) -> None:
        """What a model says, where a number is looked for."""
        last_number(text)
        normalise_number(text)

    def generator(self, given: tuple[str, dict[str, Any]]) -> None:
        """A reasoning-gym task with odd settings."""
        name, options = given
        self.host.create("task", name, {"pool": 1, **options})

    def env_id(self, name: str) -> None:
        """An id that hardly exists."""
        gymnasium.make(name, decoder=self.decoder, task_kwargs={"path": str(self.data)})

    def make(self, kwargs: dict[str, Any]) -> None:
        """Keyword arguments of gymnasium.make and make_vec."""
        common = {"decoder": self.decoder, "task_kwargs": {"path": str(self.data)}, **SIZES}
        merged = {**common, **kwargs}
        if isinstance(merged["decoder"], dict):  # an empty table means the default model, which would be fetched
            merged["decoder"] = {"model": str(self.room / "nowhere"), **merged["decoder"]}
        count = merged.pop("num_envs", None)
        if count is None:
            gymnasium.make("dlr/GSM8K-v0", disable_env_checker=True, **merged)
        else:
            gymnasium.make_vec("dlr/GSM8K-v0", num_envs=count, **merged)

    def action(self, given: tuple[str, bool, int]) -> None:
        """An action that is none."""
        kind, batched, seed = given
        env, shape = (self.vector, (2, 8)) if batched else (self.single, (8,))
        env.reset(seed=0)
        good = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
        env.step(spoilt(kind, good, seed))

    def reset(self, given: tuple[bool, Any, Any]) -> None:
        """Seeds and options of a reset."""
        batched, seed, options = given
        (self.vector if batched else self.single).reset(seed=seed, options=options)

    def model_folder(self, given: tuple[str, bytes | None]) -> None:
        """A model folder in which one file is not what it was."""
        folder = self.copy(self.model, *given)
        self.host.create("decoder", "hf", {"model": str(folder)})

    def gguf_file(self, content: bytes) -> None:
        """A GGUF file."""
        path = self.file("odd.gguf", content)
        check_gguf(path)
        self.host.create("decoder", "hf", {"model": str(path)})

    def artefact(self, given: tuple[str, bytes | None]) -> None:
        """A saved space."""
        load_space(self.host, self.copy(self.space, *given), self.decoder, SIZES)

    def assistant(self, given: tuple[str, bytes | None]) -> None:
        """A shared assistant."""
        DLRPipeline.from_pretrained(self.copy(self.shared, *given), host=self.host)

    def run_file(self, given: tuple[str, bytes | None]) -> None:
        """A run folder's manifest, table and logs: read, and shown as a page."""
        folder = self.copy(self.run, *given)
        read_manifest(folder)
        read_table(folder)
        render([folder])

    def checkpoint(self, given: tuple[str, bytes | None]) -> None:
        """A run folder's manifest and weights, loaded."""
        DLRPipeline.from_run(self.copy(self.run, *given), host=self.host)

    def expression(self, text: str) -> None:
        """What a model says, where an expression is compared."""
        equivalent("1/2", text, SECONDS)

    def code(self, given: tuple[str, str]) -> None:
        """What a model says, where a verifier would evaluate it."""
        name, text = given
        if name not in self.generators:
            task = ReasoningGym(ReasoningGym.Options(pool=1), name)
            self.generators[name] = task, task.item("train", 0)
        task, item = self.generators[name]
        answer = text.replace("CANARY", str(self.room / "CANARY"))
        task.score(item, answer, True)
        if name in SYMBOLIC:
            judged(name, {}, item.metadata, answer)

    def part(self, text: str) -> None:
        """--part of a sweep."""
        parse_part(text)

    def copy(self, source: Path, name: str, content: bytes | None) -> Path:
        """A folder like another one, but for one file; None leaves it out. Always the same place: few files stay."""
        folder = self.room / f"copy-of-{source.name}"
        if not folder.is_dir():
            shutil.copytree(source, folder)
        if folder in self.changed:
            shutil.copy(source / self.changed[folder], folder / self.changed[folder])
        self.changed[folder] = name
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        return folder

    # ---- the lot -------------------------------------------------------------------------------------------------

    def families(self) -> list[Family]:
        """Every way in, with what comes through it and how often in the whole run."""
        paths, names = setting_paths(), ["dlr/GSM8K-v0", "dlr/ChainSum-v0"]
        own = [
            f"{kind}.{key}" for kind in COMPONENTS for key in ("name", "width", "radius", "anchor", "chart", "weight")
        ]
        trees = hostile.settings_tree(paths + own, {**self.parts, "env": names})
        whole = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.toml"))]
        arguments = ["task", "task_kwargs", "space", "reward", "num_latents", "latent_dim", "latents_per_step",
                     "temperature", "max_new_tokens", "split", "num_envs", "autoreset_mode", "decoder"]  # fmt: skip
        named = st.dictionaries(
            st.sampled_from(["name", "num_latents", "latent_dim", "radius", "chart", "model", "path"]),
            hostile.JUNK, max_size=3,
        )  # fmt: skip
        kwargs = st.dictionaries(
            st.sampled_from(arguments) | hostile.misspelt(arguments), hostile.JUNK | named, min_size=1, max_size=3
        )
        options = st.dictionaries(st.sampled_from(["index", "group_size", "reset_mask", "x"]), hostile.JUNK, max_size=2)
        generators = ["reasoning-gym:chain_sum", "reasoning-gym:gcd", "reasoning-gym:countdown"]
        gym_names = st.sampled_from(generators) | hostile.misspelt(generators) | hostile.NASTY
        gym_options = st.dictionaries(
            st.sampled_from(["min_terms", "max_terms", "min_digits", "operators", "allow_negation", "seed"]),
            hostile.SCALARS.filter(small) | st.lists(hostile.SCALARS.filter(small), max_size=2), max_size=2,
        )  # fmt: skip
        ids = hostile.misspelt(names) | hostile.TEXT.filter(lambda text: ":" not in text)
        code = st.tuples(
            st.sampled_from([*SYMBOLIC, "string_insertion", "spiral_matrix", "binary_matrix", "n_queens"]),
            st.sampled_from(hostile.CODE) | st.text("0123456789x+-*/()[]'! ,.", max_size=30),
        )
        actions = st.tuples(st.sampled_from(hostile.ACTIONS), st.booleans(), st.integers(0, 99))
        files = st.sampled_from(whole).flatmap(hostile.damaged) | st.binary(max_size=60)
        bombs = st.sampled_from(hostile.BOMBS) | st.text("0123456789x^{}\\frac sqrt+-*/()%", max_size=40)
        return [
            Family("settings", 2640, trees, lambda tree: resolve(tree, self.host)),
            Family("--set", 2200, st.lists(hostile.assignment(paths + own), min_size=1, max_size=3), self.assignments),
            Family("TOML files", 900, files, self.toml),
            Family("GSM8K data", 700, hostile.jsonl(ROW), self.gsm8k),
            Family("recommendation data", 400, hostile.jsonl(USER), self.recommendation),
            Family("numbers in completions", 900, hostile.COMPLETIONS, self.numbers),
            Family("reasoning-gym settings", 300, st.tuples(gym_names, gym_options), self.generator),
            Family("environment ids", 200, ids, self.env_id),
            Family("gymnasium.make", 500, kwargs, self.make),
            Family("actions", 500, actions, self.action),
            Family("reset", 500, st.tuples(st.booleans(), hostile.JUNK, hostile.JUNK | options), self.reset),
            Family("model folders", 150, self.folder(self.model), self.model_folder),
            Family("GGUF files", 400, hostile.damaged(self.gguf) | st.binary(max_size=60), self.gguf_file),
            Family("saved spaces", 200, self.folder(self.space), self.artefact),
            Family("shared assistants", 60, self.folder(self.shared), self.assistant),
            Family("run folders", 60, self.folder(self.run, ".json"), self.run_file),
            Family("checkpoints", 60, self.folder(self.run, "manifest.json", "safetensors"), self.checkpoint),
            Family("expressions", 60, bombs, self.expression),
            Family("code in completions", 150, code, self.code),
            Family("--part", 100, hostile.NASTY | st.from_regex(r"\A[\d²]{1,3}/[\d²]{1,3}\Z"), self.part),
        ]  # fmt: skip

    def folder(self, source: Path, *endings: str) -> st.SearchStrategy[tuple[str, bytes | None]]:
        """One file of a folder, and what it is replaced by."""
        files = [path for path in sorted(source.rglob("*")) if path.is_file() and path.stat().st_size]
        files = [path for path in files if not endings or any(end in path.name for end in endings)]
        chosen = []
        for path in files:
            content, name = path.read_bytes(), str(path.relative_to(source))
            kinds = [hostile.damaged(content), st.none(), st.just(b"")]
            if path.suffix == ".json":
                kinds = [hostile.bad_json(json.loads(content)), *kinds]
            elif path.suffix == ".jsonl":
                kinds = [hostile.jsonl(json.loads(content.splitlines()[0])), *kinds]
            chosen.append(st.tuples(st.just(name), st.one_of(kinds)))
        return st.one_of(chosen)


def small(value: Any) -> bool:
    """A generator told to make a number of a million digits would do it: that is no bad input, but a long wait."""
    return not isinstance(value, int) or abs(value) < 100


def spoilt(kind: str, good: Any, seed: int) -> Any:
    """Something else where an array of actions is expected."""
    rng = np.random.default_rng(seed)
    one = tuple(int(rng.integers(size)) for size in good.shape)
    made: dict[str, Callable[[], Any]] = {
        "nan": lambda: np.where(rng.random(good.shape) < 0.5, np.nan, good),
        "inf": lambda: np.where(rng.random(good.shape) < 0.5, np.inf, good),
        "text": lambda: good.astype(str),
        "object": lambda: np.full(good.shape, None, object),
        "complex": lambda: good.astype(complex) * 1j,
        "bool": lambda: good > 0,
        "dates": lambda: good.astype("m8[s]"),
        "shape": lambda: rng.uniform(size=tuple(rng.integers(0, 4, rng.integers(0, 4)))),
        "ragged": lambda: [[0.0], [0.0, 1.0], "x"],
        "none": lambda: None,
        "table": lambda: {"action": good},
        "scalar": lambda: float(good[one]),
        "huge": lambda: good.astype(np.float64) * 1e300,
        "gradient": lambda: torch.tensor(good, requires_grad=True),
        "bytes": lambda: good.tobytes(),
    }
    return made[kind]()
