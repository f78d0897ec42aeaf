"""A main model of which only the tokenizer and the input embeddings are here: the rest is too large, and elsewhere."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import cached_file

from dlr_core.cost import Usage
from dlr_core.errors import ModelError, first_line
from dlr_core.records import PromptCache
from dlr_plugins.decoders import smollm2
from dlr_plugins.decoders.flops import token_flops
from dlr_plugins.decoders.loading import device_named, dtype_named
from dlr_plugins.decoders.prompt_limits import positions_of
from dlr_plugins.decoders.text import PromptText

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class EmbeddingTable(PromptText):
    """Token embeddings of prompts stand in for a model's hidden states.

    Read out of the one safetensors file that holds them; of a sharded model on the hub only that file is fetched.

    Args:
        model: smollm2-135m, a folder, or a hub id.
        device: auto, cpu, cuda …
        dtype: auto, float32, bfloat16, float16.

    Raises:
        ModelError: there is no such table.
    """

    def __init__(self, model: str, device: str, dtype: str) -> None:
        where = str(smollm2.folder()) if model == smollm2.NAME else str(Path(model).expanduser())
        self.device: torch.device = device_named(device)
        self.dtype: torch.dtype = dtype_named(dtype, self.device)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
            config = AutoConfig.from_pretrained(where, trust_remote_code=False)
            with torch.device("meta"):  # shapes and names, no weights
                hollow = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            self.positions = positions_of(config.get_text_config())
            ends = self._ends(where, hollow)
            self.table_VH = self._table(where, hollow).to(self.device, self.dtype)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"cannot read the embeddings of {model!r}: {first_line(error)}; decoder.states=embeddings "
                "needs a model folder or a hub id with safetensors"
            ) from None
        if ends is None:
            raise ModelError("the main model declares no end-of-sequence token")
        self.end_ids = torch.tensor(ends if isinstance(ends, list) else [ends], device=self.device)
        self.hidden_size = int(self.table_VH.shape[1])
        self.usage = Usage()
        self.flops_per_token = token_flops(hollow)

    def _ends(self, where: str, hollow: Any) -> Any:
        try:
            found = GenerationConfig.from_pretrained(where).eos_token_id
        except OSError:  # a model without one
            found = hollow.generation_config.eos_token_id
        return self.tokenizer.eos_token_id if found is None else found

    @staticmethod
    def _table(where: str, hollow: Any) -> Tensor:
        """The (V, H) table, out of whichever file holds it."""
        module = hollow.get_input_embeddings()
        if type(module) is not torch.nn.Embedding:
            raise ValueError(f"its {type(module).__name__} does more than look embeddings up")
        name = next(name for name, weight in hollow.named_parameters() if weight is module.weight)
        index = cached_file(where, INDEX, _raise_exceptions_for_missing_entries=False)
        if index is None:
            path = cached_file(where, WEIGHTS)
        else:
            files = _json(index)["weight_map"]
            path = cached_file(where, files[_key(name, files)])
        with safe_open(path, "pt") as tensors:
            table: Tensor = tensors.get_tensor(_key(name, tensors.keys()))
        return table

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of tokens."""
        return self.table_VH[ids]

    def embedding_table(self) -> Tensor:
        """The (V, H) input embedding table."""
        return self.table_VH

    def prefill(
        self, questions: Sequence[str], anchor: Sequence[int], pending: Sequence[int], latents: int
    ) -> PromptCache:
        """Prompts whose states are their tokens' embeddings; rows are padded on the left."""
        rows = [[*self.prompt_ids(question), *anchor, *pending] for question in questions]
        left = len(pending) or (0 if latents else 1)
        width = max(map(len, rows)) - left
        ids_NS = torch.full((len(rows), width), int(self.end_ids[0]), device=self.device)
        mask_NS = torch.zeros_like(ids_NS)
        for number, row in enumerate(rows):
            body = row[: len(row) - left]
            ids_NS[number, width - len(body) :] = torch.tensor(body, device=self.device)
            mask_NS[number, width - len(body) :] = 1
        tails = torch.tensor([row[len(row) - left :] for row in rows], dtype=torch.long, device=self.device)
        return PromptCache((), (), mask_NS, self.table_VH[ids_NS], self.table_VH[tails], latents)

    def state_bound(self) -> Tensor:
        """Largest magnitude (H,) of each coordinate."""
        bound: Tensor = (self.table_VH.float().abs().amax(0) * 1.01 + 1e-3).cpu()
        return bound

    def fingerprint(self) -> str:
        """SHA-256 of the table, all that is known of the model here."""
        flat = self.table_VH.detach().cpu().contiguous()
        digest = hashlib.sha256(f"input embeddings {flat.dtype} {tuple(flat.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _key(name: str, names: Iterable[str]) -> str:
    """The name under which a file holds a parameter: a checkpoint may leave the first part of it out, or add one."""
    for found in names:
        if found == name or found.endswith(f".{name}") or name.endswith(f".{found}"):
            return found
    raise ValueError(f"no file holds {name}")


def _json(path: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found
