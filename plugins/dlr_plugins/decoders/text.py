"""Text in and out of a main model: its tokenizer, its chat template, its end token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlr_core.common_prefix import common_prefix
from dlr_plugins.decoders.prompt_limits import fitting, known


class PromptText:
    """What a decoder does with text. It sets these attributes, and has a table of input embeddings."""

    tokenizer: Any
    device: torch.device
    end_ids: Tensor
    """Tokens that end a completion, the usual one first."""
    positions: int | None
    """Positions that the model has; None if its configuration does not say."""

    def embedding_table(self) -> Tensor:
        """The (V, H) input embedding table."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        return known(ids, len(self.embedding_table()))

    def token(self, index: int) -> str:
        """The text of one vocabulary entry."""
        return str(self.tokenizer.decode([index]))

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of a question in the chat template, up to where the answer begins."""
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": question}]
            ids = self.encode(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        else:
            ids = list(self.tokenizer(question + "\n")["input_ids"])
        return fitting(ids, question, len(self.embedding_table()), self.positions)

    def closing_ids(self) -> list[int]:
        """Token ids with which every prompt ends, whatever the question; none without a chat template.

        A template may be such that a question's last letters become one token with what follows: not where special
        tokens stand between them.
        """
        if not self.tokenizer.chat_template:
            return []
        ends = [self.prompt_ids(question)[::-1] for question in ("a", "b")]
        return ends[0][: common_prefix(ends)][::-1]

    def encode_targets(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts as completions with their end token: ids (N, L) and mask (N, L)."""
        end = int(self.end_ids[0])
        rows = [[*self.encode(text), end] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [end] * (width - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows], device=self.device)
        return ids, mask

    def texts(self, ids_NL: Tensor, mask_NL: Tensor) -> list[str]:
        """What completions say, special tokens left out."""
        pairs = zip(ids_NL.tolist(), mask_NL.tolist(), strict=True)
        rows = [[token for token, there in zip(ids, mask, strict=True) if there] for ids, mask in pairs]
        return [str(text) for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]
