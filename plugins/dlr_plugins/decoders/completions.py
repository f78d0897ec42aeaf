"""A client of ``/v1/completions`` with prompt embeddings: vLLM's server, or ``dlr serve``."""

import http.client
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dlr_core.errors import ConfigError, ModelError

KEY = "VLLM_API_KEY"
"""Environment variable with the server's key, for the client and for ``dlr serve``; no setting, so no run saves it."""
PAUSE_SECONDS = 0.5
"""Before the first retry; twice as long before each next one."""
LONGEST_PAUSE = 10.0
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may go away by themselves."""
NEUTRAL = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Said in every request, because a vLLM server otherwise takes what the model's ``generation_config.json`` suggests."""


@dataclass(frozen=True)
class Choice:
    """One prompt's completion, as the server gave it."""

    ids: list[int]
    log_probs: list[float] | None
    """Of each token, in nats at temperature 1; None where the server does not say."""
    stopped: bool
    """It ended by itself."""
    stop_id: int | None
    """The token it ended with, if the server names one that was asked for."""


class CompletionsClient:
    """Asks one server, with time limits and retries.

    Args:
        url: its base, such as ``http://127.0.0.1:8000/v1``.
        model: the name it serves the model under; the first one it lists if None.
        timeout: seconds that it may be silent.
        retries: how often a request that failed without fault of its own is made again.
    """

    def __init__(self, url: str, *, model: str | None, timeout: float, retries: int) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or parts.scheme not in ("http", "https"):
            raise ConfigError(f"decoder.url: expected something like http://127.0.0.1:8000/v1, got {url!r}")
        self.url, self.timeout, self.retries = url, timeout, retries
        self._secure, self._place = parts.scheme == "https", (host, port)
        self._base = parts.path.rstrip("/").removesuffix("/v1")
        listed = [str(entry.get("id")) for entry in self._ask("GET", "/v1/models").get("data", [])]
        if model is not None and model not in listed:
            raise ModelError(f"{url} serves {', '.join(listed) or 'nothing'}, not decoder.served_model={model!r}")
        if not listed:
            raise ModelError(f"{url} lists no model under /v1/models")
        self.model = model or listed[0]

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int | None, stop_ids: Sequence[int]
    ) -> list[Choice]:
        """A completion of each prompt.

        Args:
            prompts: embeddings as :func:`dlr_plugins.serving.wire.encode` makes text of them.
            max_tokens: limit on a completion.
            temperature: 0 is greedy.
            seed: of the tokens' draws; the server gives every prompt of a request the same.
            stop_ids: tokens that end a completion.

        Raises:
            ModelError: the server cannot be reached, refuses, or gives no token ids.
        """
        asked = {
            "model": self.model, "prompt_embeds": list(prompts), "max_tokens": max_tokens, "temperature": temperature,
            "stop_token_ids": list(stop_ids), "logprobs": 0, "return_token_ids": True,
            "return_tokens_as_token_ids": True, **NEUTRAL,
        }  # fmt: skip
        answer = self._ask("POST", "/v1/completions", asked if seed is None else {**asked, "seed": seed})
        choices = sorted(answer.get("choices", []), key=lambda choice: choice.get("index", 0))
        if len(choices) != len(prompts):
            raise ModelError(f"{self.url}: expected {len(prompts)} completions, got {len(choices)}")
        return [self._choice(choice) for choice in choices]

    def _choice(self, choice: Mapping[str, Any]) -> Choice:
        about = choice.get("logprobs") or {}
        names = [str(name) for name in about.get("tokens") or []]
        ids = choice.get("token_ids")
        if ids is None and names and all(name.startswith("token_id:") for name in names):
            ids = [int(name.removeprefix("token_id:")) for name in names]
        if ids is None:
            raise ModelError(f"{self.url} gives no token ids with its completions; vLLM does from version 0.10.2 on")
        given = about.get("token_logprobs") or []
        known = len(given) == len(ids) and None not in given
        stop = choice.get("stop_reason")
        return Choice(
            list(ids), [float(nats) for nats in given] if known else None, choice.get("finish_reason") == "stop",
            stop if isinstance(stop, int) else None,
        )  # fmt: skip

    # ---- one request ---------------------------------------------------------------------------------------------

    def _ask(self, method: str, page: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that the server answers with.

        Raises:
            ModelError: it refuses, or gives no answer in all the tries.
        """
        sent = None if body is None else json.dumps(body).encode()
        reason = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE))
            try:
                status, text = self._once(method, page, sent)
            except TimeoutError:
                reason = f"no answer within decoder.timeout={self.timeout:g} s"
                continue
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
                continue
            answer = _object(text)
            if status == 200 and answer is not None:
                return answer
            said = _sentence(answer, text)
            reason = f"status {status}: {said}"
            if status not in AGAIN and status != 200:
                raise ModelError(self._refused(status, said))
        tries = f"tried {self.retries + 1} times" if self.retries else "tried once"
        raise ModelError(f"no completions from {self.url}: {reason} ({tries}; is the server running? dlr serve)")

    def _once(self, method: str, page: str, sent: bytes | None) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(*self._place, timeout=self.timeout)
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, self._base + page, sent, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _refused(self, status: int, said: str) -> str:
        """One line that says what to do."""
        if "enable-prompt-embeds" in said:
            return f"{self.url} takes no prompt embeddings: start it with vllm serve MODEL --enable-prompt-embeds"
        if status in (401, 403):
            return f"{self.url} wants a key: set {KEY} ({said})"
        return f"{self.url} refused ({status}): {said}"


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _sentence(answer: dict[str, Any] | None, text: bytes) -> str:
    """Why a server refused, in a line: its error's message, wherever it has put it."""
    if answer is None:
        return " ".join(text[:200].decode("utf-8", "replace").split()) or "nothing"
    error = answer.get("error", answer)
    found = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return " ".join(str(found or answer).split())[:400]
