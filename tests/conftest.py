"""Tiny random main models, a toy task that they can solve, and a small data file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from transformers import GPT2Config, GPT2LMHeadModel

from dlr_core import API_VERSION, PluginHost, hookimpl
from dlr_core.protocols import EnvSpec
from dlr_core.records import Item, Verdict
from dlr_core.splits import split_of
from dlr_core.testing.tiny import byte_tokenizer, save, special_ids
from dlr_core.testing.tiny import tiny_model as write_tiny_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that they are not what a second worker waits for at the end."""
    items.sort(key=lambda item: "real" not in item.keywords)


def make_gpt2(folder: Path) -> Path:
    """A folder with a random GPT-2: learned positions, tied embeddings, no chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=512, **special_ids(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).float().eval()
    with torch.no_grad():
        for name, weight in model.transformer.named_parameters():
            if weight.dim() == 2:
                weight.mul_(8.0 if name.startswith("h.") else 3.0)
    return save(model, tokenizer, folder)


class ToyTask:
    """Any wanted first character is a right answer."""

    class Options(BaseModel):
        wanted: str = "13579"
        questions: int = 60

    def __init__(self, options: Options) -> None:
        self.options = options
        self.shelves: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
        for number in range(options.questions):
            text = f"Say something about {number}."
            shelf = self.shelves[split_of(text)]
            shelf.append(Item(text, options.wanted[0], len(shelf)))

    def size(self, split: str) -> int:
        return len(self.shelves[split])

    def item(self, split: str, index: int) -> Item:
        return self.shelves[split][index % len(self.shelves[split])]

    def gold_text(self, item: Item) -> str:
        return item.answer

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        first = completion[:1]
        return Verdict(first or None, float(bool(first) and first in self.options.wanted), 1.0)


class ToyPlugin:
    """Registers ``toy`` and ``dlr/Toy-v0``."""

    DLR_API_VERSION = API_VERSION

    @hookimpl
    def dlr_register_task(self, register):
        register("toy", ToyTask)

    @hookimpl
    def dlr_register_env(self, register):
        register("dlr/Toy-v0", lambda: EnvSpec("toy", {}, 5))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return write_tiny_model(tmp_path_factory.mktemp("other-llama"), seed=1)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.fixture
def host() -> PluginHost:
    """Every built-in component and the toy task."""
    made = PluginHost.from_entry_points()
    made.add(ToyPlugin(), "toy")
    return made


@pytest.fixture(scope="session")
def tiny_decoder(tiny_model: Path) -> Any:
    return PluginHost.from_entry_points().create("decoder", "hf", {"model": str(tiny_model)})


@pytest.fixture(scope="session")
def gsm8k_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty made-up word problems."""
    path = tmp_path_factory.mktemp("gsm8k") / "problems.jsonl"
    names = ["Ada", "Ben", "Cleo", "Dov", "Eva"]
    rows = []
    for number in range(40):
        name, had, got = names[number % 5], 3 + number, 2 + number % 7
        question = f"{name} had {had} marbles and found {got} more. How many marbles does {name} have?"
        rows.append({"question": question, "answer": f"{had} + {got} = {had + got}.\n#### {had + got}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
