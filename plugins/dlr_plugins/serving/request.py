"""What ``/v1/completions`` is asked, checked: prompt embeddings, and vLLM's names for how to complete them."""

import json
import reprlib
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from dlr_core.errors import unknown_name
from dlr_plugins.serving import wire
from dlr_plugins.serving.refusal import Refusal

NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("n", "best_of", "top_p", "repetition_penalty", "length_penalty"), (1, None)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_p", "min_tokens"), (0, None)),
    **dict.fromkeys(("echo", "stream", "use_beam_search", "ignore_eos"), (False, None)),
    **{name: (None, "", [], {}) for name in ("prompt", "stop", "suffix", "logit_bias", "stream_options")},
    "top_k": (-1, 0, None),
    "skip_special_tokens": (True, None),
}
"""What a client may say, as long as it asks for nothing: these are not offered here."""


class Body(BaseModel):
    """The fields that mean something here, by vLLM's names and defaults."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt_embeds: str | list[str]
    model: str | None = None
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0, le=100)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop_token_ids: list[int] = Field([], max_length=64)
    logprobs: Literal[0] | None = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    user: str | None = None


@dataclass(frozen=True)
class Asked:
    """One request: its prompts, and how each is to be completed."""

    prompts: list[Tensor]
    """Embeddings (P, H) of each."""
    max_tokens: int
    temperature: float
    seed: int | None
    stop_ids: frozenset[int]
    log_probs: bool
    token_ids: bool
    """Whether the answer lists token ids."""
    names_ids: bool
    """Whether its log-probs name tokens by id."""


@dataclass(frozen=True)
class Limits:
    """How much one request may ask."""

    body_bytes: int = 64 << 20
    prompts: int = 256
    positions: int = 4096
    """Prompt and completion together."""


def read_request(body: bytes, *, model: str, width: int, limits: Limits) -> Asked:
    """A request's body, understood.

    Args:
        body: JSON.
        model: the name that is served.
        width: H.
        limits: how much may be asked.

    Raises:
        Refusal: it is malformed, or asks for what is not offered.
    """
    fields = _fields(body)
    if fields.model not in (None, model):
        raise Refusal(f"The model `{fields.model:.100}` does not exist; served here: {model}", 404)
    texts = [fields.prompt_embeds] if isinstance(fields.prompt_embeds, str) else fields.prompt_embeds
    if not 1 <= len(texts) <= limits.prompts:
        raise Refusal(f"prompt_embeds: expected 1 to {limits.prompts} prompts, got {len(texts)}")
    left = limits.positions - fields.max_tokens
    if left < 1:
        raise Refusal(f"max_tokens: expected at most {limits.positions - 1}, got {fields.max_tokens}")
    return Asked(
        [wire.decode(text, width, left) for text in texts],
        fields.max_tokens,
        fields.temperature,
        fields.seed,
        frozenset(fields.stop_token_ids),
        fields.logprobs is not None,
        fields.return_token_ids,
        fields.return_tokens_as_token_ids,
    )


def _fields(body: bytes) -> Body:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("expected a JSON object, got something that does not parse") from None
    if not isinstance(given, dict):
        raise Refusal(f"expected a JSON object, got {type(given).__name__}")
    for name, harmless in NEUTRAL.items():
        value = given.pop(name, None)
        if value not in harmless:
            raise Refusal(f"{name} is not offered here: expected {harmless[0]!r}, got {reprlib.repr(value)}")
    try:
        return Body.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            raise Refusal(unknown_name("field", where[:100], Body.model_fields)) from None
        raise Refusal(f"{where}: {problem['msg']}, got {reprlib.repr(problem['input'])}") from None
