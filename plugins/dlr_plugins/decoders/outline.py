"""A main model without its weights: its sizes, its tokenizer, and what a latent space asks for when it is made.

Made of config.json on PyTorch's ``meta`` device, of files that are here already: nothing is fetched, no weight is read.
"""

from typing import Any

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dlr_core.errors import DLRError, ModelError, first_line, shown
from dlr_core.memory import ModelSize
from dlr_core.paths import expanded, is_folder
from dlr_plugins.decoders import smollm2
from dlr_plugins.decoders.flops import token_flops
from dlr_plugins.decoders.gated import gated
from dlr_plugins.decoders.loading import device_named, dtype_named, silence
from dlr_plugins.decoders.model_folder import check_folder
from dlr_plugins.decoders.orders import half_bytes
from dlr_plugins.decoders.packed_linear import worth_packing
from dlr_plugins.decoders.products import Packing, Products, packing_here
from dlr_plugins.decoders.prompt_limits import positions_of
from dlr_plugins.decoders.quantised import Weights, kept_bytes, quantisable
from dlr_plugins.decoders.teacher_forced import at_once
from dlr_plugins.decoders.text import PromptText

INNER = ("intermediate_size", "n_inner", "ffn_dim")


class Outline(PromptText):
    """What is known of a main model before it is loaded.

    Attributes:
        size: for the memory plan.
        place: where it would be; of a spread model, what kind of device its inputs are on.
    """

    def __init__(
        self, name: str, device: str, dtype: str, *, copies_prompts: bool, spread: bool, weights: Weights = "full",
        packed: bool = True, products: Products = "float32", scored_at_once: int = 0,
    ) -> None:  # fmt: skip
        """From settings of a decoder.

        Raises:
            ModelError: the model is not here, or cannot be understood.
        """
        self.place: torch.device = device_named(device)
        self.spread = spread
        kind = dtype_named(dtype, self.place)
        where, source = _here(name)
        path = expanded(name)
        try:
            with silence():
                config = AutoConfig.from_pretrained(where, **source)
                self.tokenizer = AutoTokenizer.from_pretrained(where, **source)
                with torch.device("meta"):
                    self.model: Any = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=False)
            packing = packing_here(products, weights, self.place, kind)
            self._read(config.get_text_config(), copies_prompts, weights, packed, packing, scored_at_once)
        except DLRError:
            raise
        except OSError as error:
            reason = "main model not here yet" if where == name and not is_folder(path) else first_line(error)
            raise ModelError(reason) from None
        except Exception as error:  # a stranger's files may make the libraries raise anything
            raise ModelError(f"the main model {shown(name)} is not understood: {first_line(error)}") from None

    def _read(
        self, config: Any, copies_prompts: bool, weights: Weights, packed: bool, packing: Packing, scored_at_once: int
    ) -> None:  # fmt: skip
        model, self.device = self.model, torch.device("cpu")
        self.hidden_size, self.positions = int(config.hidden_size), positions_of(config)
        heads = int(config.num_attention_heads)
        groups = int(getattr(config, "num_key_value_heads", None) or heads)
        width = int(getattr(config, "head_dim", None) or self.hidden_size // heads)
        layers = int(config.num_hidden_layers)
        self.kv_sizes = [(groups, width)] * layers
        self.dtype, self.flops_per_token = torch.float32, token_flops(model)
        inner = next((int(found) for key in INNER if (found := getattr(config, key, None))), 4 * self.hidden_size)
        three = sum(part.weight.shape[0] == inner for part in _linears(model)) >= 2 * layers
        three = three and (self.spread or not gated(model))
        number = model.dtype.itemsize
        rounded = quantisable(model, weights)
        linear = sum(part.weight.numel() * 4 for part in _linears(model) if part not in rounded)
        head = 4 * model.get_output_embeddings().weight.numel()
        kept = [kept_bytes(part.out_features, part.in_features, weights, number) for part in rounded]
        # In float32 only the head is held twice. Two copies in bfloat16 are as large as the weights; of the head there
        # are one in float32 for the logits and one for their gradient. In float16 both ways are counted layer by layer;
        # layers that are one product may take less.
        shapes = [(part.out_features, part.in_features) for part in _linears(model)]
        halves = sum(half_bytes(outputs, inputs) + half_bytes(inputs, outputs) for outputs, inputs in shapes)
        copies = {"float32": head, "float16": halves, "bfloat16": linear + head // 2}[packing]
        beside = linear if packing == "bfloat16" else head
        memory = psutil.virtual_memory().total
        packs = packed and not self.spread and worth_packing(linear, beside, self.place, model.dtype, memory)
        saved = sum(int(part.weight.nbytes) for part in rounded) - sum(kept)
        if packs and packing == "float16":
            saved += linear - head
        self.size = ModelSize(
            weights=sum(part.nbytes for part in [*model.parameters(), *model.buffers()]) - saved,
            packed=copies if packs else 0,
            layers=layers,
            cache_width=2 * groups * width * layers,
            hidden=self.hidden_size,
            heads=heads,
            head_width=width,
            inner=(3 if three else 2) * inner,
            vocabulary=int(config.vocab_size),
            number=number,
            pass_positions=scored_at_once or at_once(self.place),
            copies_prompts=copies_prompts,
        )

    def embedding_table(self) -> torch.Tensor:
        """As many rows as there are tokens; no numbers."""
        table: torch.Tensor = self.model.get_input_embeddings().weight
        return table

    def available(self) -> int:
        """Bytes that are free where the model would be; of a spread one, on all GPUs and in the machine's memory."""
        machine = int(psutil.virtual_memory().available)
        if self.place.type != "cuda":
            return machine
        if not self.spread:
            return int(torch.cuda.mem_get_info(self.place)[0])
        return machine + sum(int(torch.cuda.mem_get_info(number)[0]) for number in range(torch.cuda.device_count()))


def _linears(model: torch.nn.Module) -> list[torch.nn.Linear]:
    return [part for part in model.modules() if type(part) is torch.nn.Linear]


def _here(name: str) -> tuple[str, dict[str, Any]]:
    """Where a model's files are, and what Transformers is told of them.

    Raises:
        ModelError: not on this machine, or damaged.
    """
    source: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    path = expanded(name)
    if name == smollm2.NAME:
        if not smollm2.is_cached():
            raise ModelError("main model not here yet")
        return str(smollm2.home_folder()), source
    if path.suffix == ".gguf":
        raise ModelError("a .gguf file says its sizes only once it is read")
    if is_folder(path):
        check_folder(path)
        return str(path), source
    return name, source
