"""What PEFT's prompt-learning methods have in common here: prompts, likelihoods and files."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DynamicCache

from dlr_core.adapted import AdaptedDecoder
from dlr_core.errors import ConfigError, RunFolderError, first_line
from dlr_core.records import PromptCache
from dlr_plugins.baselines.options import SoftPromptOptions
from dlr_plugins.decoders.cache_name import CACHE
from dlr_plugins.decoders.prefilling import layers_of

WEIGHTS = "adapter_model.safetensors"


class SoftPrompt:
    """T learned virtual tokens in front of every prompt, the same for all questions."""

    label: str
    needs: Mapping[str, str] = {"peft": "deeplatent-reasoning[baselines]"}

    def __init__(self, options: SoftPromptOptions, decoder: Any) -> None:
        if not hasattr(decoder, "model"):
            raise ConfigError(f"{type(self).__name__} needs a main model on Transformers: decoder.name=hf")
        if getattr(decoder, "spread", False):
            raise ConfigError(f"{type(self).__name__} needs the main model on one device: decoder.device_map=none")
        from peft import get_peft_model

        self.decoder, self.virtual_tokens = decoder, options.num_virtual_tokens
        with warnings.catch_warnings():  # PEFT 0.21 asks Transformers 5 by an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            self.model: Any = get_peft_model(decoder.model, self.peft_config())
        self.encoder: Any = self.model.prompt_encoder["default"]
        if options.init == "text":
            ids = decoder.prompt_ids("a")
            ids = (ids * (1 + self.virtual_tokens // len(ids)))[: self.virtual_tokens]
            with torch.no_grad():
                self.encoder.embedding.weight.copy_(self.as_weights(torch.tensor([ids], device=decoder.device)))

    def peft_config(self) -> Any:
        """The method's own PEFT configuration."""
        raise NotImplementedError

    def as_weights(self, ids_1T: Tensor) -> Tensor:
        """The weights (T, …) with which the virtual tokens are these real ones."""
        raise NotImplementedError

    def open_prompt(self, embeds_NPH: Tensor) -> tuple[DynamicCache, Tensor]:
        """Cache that N prompts begin with, and the embeddings to be fed, the virtual tokens in one of the two."""
        raise NotImplementedError

    def trainable(self) -> list[nn.Parameter]:
        """The virtual tokens."""
        return [self.encoder.embedding.weight]

    def log_prob(self, questions: Sequence[str], prompt: str, answers: Sequence[str]) -> Tensor:
        """Log-probability (N,) in nats of answers, end token included, after questions and prompt."""
        ids_NL, mask_NL = self.decoder.encode_targets(answers)
        cache = self._prefill(questions, self.decoder.encode(prompt))
        log_prob_N: Tensor = self.decoder.log_prob(cache, ids_NL, mask_NL)
        return log_prob_N

    def adapted(self) -> AdaptedDecoder:
        """The frozen model under the virtual tokens."""
        return AdaptedDecoder(self.decoder, self._prefill)

    def _prefill(self, questions: Sequence[str], tail: Sequence[int]) -> PromptCache:
        """Virtual tokens, then each question in the chat template and the tail, whose last token is left to be fed."""
        decoder = self.decoder
        rows = [decoder.prompt_ids(question) + list(tail) for question in questions]
        width = max(map(len, rows)) - 1
        ids_NS = torch.full((len(rows), width), int(decoder.end_ids[0]), device=decoder.device)
        mask_NS = torch.ones(len(rows), self.virtual_tokens + width, dtype=torch.long, device=decoder.device)
        for number, row in enumerate(rows):
            gap = width - (len(row) - 1)
            ids_NS[number, gap:] = torch.tensor(row[:-1], device=decoder.device)
            mask_NS[number, self.virtual_tokens : self.virtual_tokens + gap] = 0
        table = decoder.model.get_input_embeddings()
        cache, embeds_NPH = self.open_prompt(table(ids_NS))
        out = decoder.body(
            inputs_embeds=embeds_NPH,
            attention_mask=mask_NS,
            position_ids=(mask_NS.cumsum(1) - 1).clamp(min=0)[:, -embeds_NPH.shape[1] :],
            **{CACHE: cache},
            use_cache=True,
        )
        positions = embeds_NPH.shape[0] * embeds_NPH.shape[1]
        decoder.usage.prefilled += positions
        decoder.usage.backpropagated += positions * out.last_hidden_state.requires_grad
        given = mask_NS.shape[1] - embeds_NPH.shape[1]  # virtual tokens that are in the cache have no states
        states = nn.functional.pad(out.last_hidden_state, (0, 0, given, 0))
        last = torch.tensor([row[-1:] for row in rows], device=decoder.device)
        return PromptCache(*layers_of(cache), mask_NS, states, table(last), 0)

    def save(self, folder: Path) -> None:
        """Write PEFT's own files (``adapter_model.safetensors``): ``PeftModel.from_pretrained`` reads them too."""
        self.model.save_pretrained(str(folder), safe_serialization=True)

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            RunFolderError: it is missing, damaged, or of another shape.
        """
        try:
            weights = load_file(folder / WEIGHTS)["prompt_embeddings"]
            with torch.no_grad():
                self.encoder.embedding.weight.copy_(weights)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise RunFolderError(f"cannot restore {folder / WEIGHTS}: {first_line(error)}") from None
