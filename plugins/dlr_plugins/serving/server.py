"""The HTTP side: ``/v1/completions`` for prompt embeddings, ``/v1/models`` and ``/health``, as a vLLM server has them.

The standard library's threading server is enough: a thread per request parses it and waits, one thread computes. Every
answer closes its connection, so that no idle one keeps the server from stopping.
"""

import hmac
import json
import socket
import socketserver
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import numpy as np

from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.serving.batcher import Batcher, Finished, Row
from dlr_plugins.serving.refusal import Refusal
from dlr_plugins.serving.request import Asked, Limits, read_request

LINGER_SECONDS = 2.0
"""How long a refused body is read on and thrown away, so that the client gets to read why."""
IDLE_SECONDS = 30.0
"""How long a client may send nothing in the middle of a request."""


class CompletionServer(ThreadingHTTPServer):
    """Serves one frozen main model.

    Args:
        decoder: the model.
        name: what it is called in requests.
        host: address to listen on.
        port: 0 takes a free one (:attr:`url` says which).
        rows: most prompts decoded together.
        limits: how much a request may ask.
        key: a bearer token that every request must carry, if given.
        log: told of batches and refusals, in a line each.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, decoder: HFDecoder, *, name: str, host: str = "127.0.0.1", port: int = 0, rows: int = 64,
        limits: Limits | None = None, key: str | None = None, log: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.decoder, self.name, self.limits, self.key, self.log = decoder, name, limits or Limits(), key, log
        self.batcher = Batcher(decoder, rows=rows, log=log)
        self.ends = frozenset(decoder.end_ids.tolist())
        self.began = int(time.time())
        self.busy = 0
        self.lock = Lock()

    def server_bind(self) -> None:
        """Bind without asking the name service who we are."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)

    @property
    def url(self) -> str:
        """What clients are to be told."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/v1"

    def stop(self) -> None:
        """Accept nothing more, finish and answer what is being decoded."""
        self.shutdown()
        self.drain()

    def drain(self) -> None:
        """:meth:`stop` for whom ``serve_forever`` has returned to."""
        self.batcher.close()
        until = time.monotonic() + LINGER_SECONDS
        while self.busy and time.monotonic() < until:
            time.sleep(0.01)
        self.server_close()

    def complete(self, asked: Asked) -> list[Finished]:
        """Complete a request's prompts, together with everybody else's."""
        rows = [
            Row(prompt, asked.max_tokens, asked.temperature, self.ends | asked.stop_ids,
                np.random.default_rng(None if asked.seed is None else asked.seed % 2**64))
            for prompt in asked.prompts
        ]  # fmt: skip
        self.batcher.submit(rows)
        answers: list[Future[Finished]] = [row.answer for row in rows]
        return [answer.result() for answer in answers]

    def completion(self, asked: Asked) -> dict[str, Any]:
        """The body of an answer."""
        done = self.complete(asked)
        choices = [self._choice(number, one, asked) for number, one in enumerate(done)]
        read, written = sum(map(len, asked.prompts)), sum(len(one.ids) for one in done)
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        about = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
        return {**about, "model": self.name, "choices": choices, "usage": usage}

    def _choice(self, index: int, done: Finished, asked: Asked) -> dict[str, Any]:
        tokenizer = self.decoder.tokenizer
        log_probs = None
        if asked.log_probs:
            names = [f"token_id:{token}" if asked.names_ids else self.decoder.token(token) for token in done.ids]
            starts = [sum(map(len, names[:place])) for place in range(len(names))]
            best = [{name: nats} for name, nats in zip(names, done.log_probs, strict=True)]
            log_probs = {
                "tokens": names, "token_logprobs": done.log_probs, "top_logprobs": best, "text_offset": starts,
            }  # fmt: skip
        by_request = done.stopped and done.ids[-1] not in self.ends
        return {
            "index": index,
            "text": str(tokenizer.decode(done.ids[: len(done.ids) - done.stopped], skip_special_tokens=True)),
            "logprobs": log_probs,
            "finish_reason": "stop" if done.stopped else "length",
            "stop_reason": done.ids[-1] if by_request else None,
            "token_ids": done.ids if asked.token_ids else None,
        }

    def models(self) -> dict[str, Any]:
        """What ``/v1/models`` says."""
        own = {"id": self.name, "object": "model", "created": self.began, "owned_by": "dlr", "root": self.name}
        return {"object": "list", "data": [{**own, "max_model_len": self.limits.positions}]}

    def health(self) -> dict[str, Any]:
        """What ``/health`` says."""
        (running, waiting), counts = self.batcher.load, self.batcher.counts
        load = {"running": running, "waiting": waiting, "answered": counts.answered}
        return {"status": "ok", **load, "tokens": counts.tokens, "mean_batch": round(counts.mean_batch, 2)}


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: CompletionServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dlr", ""
    error_content_type, error_message_format = "text/plain", "%(message)s\n"
    timeout = IDLE_SECONDS
    unread = 0
    """Bytes of a body that were announced and not read."""

    def handle(self) -> None:
        """Answer one request; a client that goes away is no event."""
        with self.server.lock:
            self.server.busy += 1
        try:
            self.close_connection = True
            self.handle_one_request()
            self._linger()
        except OSError:
            return
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def do_GET(self) -> None:
        """``/health`` and ``/v1/models``."""
        pages = {"/health": self.server.health, "/v1/models": self.server.models}
        self._answered(lambda: pages[self._page(pages)]())

    def do_POST(self) -> None:
        """``/v1/completions``."""
        self._answered(self._complete)

    def handle_expect_100(self) -> bool:
        """Whether a body is wanted; one that is too large is refused before it is sent."""
        try:
            self._length()
        except Refusal as refusal:
            self._refuse(refusal)
            self.unread = 0
            return False
        return super().handle_expect_100()

    def _complete(self) -> dict[str, Any]:
        server = self.server
        self._page(("/v1/completions",))
        body = self._body()
        width = server.decoder.hidden_size
        return server.completion(read_request(body, model=server.name, width=width, limits=server.limits))

    def _page(self, pages: Collection[str]) -> str:
        """The path, if it is one of these and the client may ask."""
        if self.headers.get("Content-Length"):
            self.unread = self._length()
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.server.key and not hmac.compare_digest(given.encode(), self.server.key.encode()):
            raise Refusal("expected the server's key as a bearer token", HTTPStatus.UNAUTHORIZED)
        page = self.path.partition("?")[0]
        if page not in pages:
            raise Refusal(f"no page {page[:100]!r} for {self.command}: {', '.join(pages)}", HTTPStatus.NOT_FOUND)
        return page

    def _length(self) -> int:
        """Bytes of the body, as announced."""
        given = self.headers.get("Content-Length")
        if given is None or self.headers.get("Transfer-Encoding"):
            raise Refusal("expected a Content-Length", HTTPStatus.LENGTH_REQUIRED)
        if not (given.isascii() and given.isdecimal()):
            raise Refusal(f"Content-Length: expected a number of bytes, got {given[:40]!r}")
        self.unread, most = int(given), self.server.limits.body_bytes
        if self.unread > most:
            raise Refusal(f"expected a body of at most {most} bytes, got {self.unread}", 413)
        return self.unread

    def _body(self) -> bytes:
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise Refusal(f"expected application/json, got {kind[:100]}", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self._length()
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            raise Refusal(f"the body did not come within {IDLE_SECONDS:g} s", HTTPStatus.REQUEST_TIMEOUT) from None
        finally:
            self.unread = 0
        if len(body) < length:
            raise Refusal(f"the body ended after {len(body)} of {length} bytes")
        return body

    def _answered(self, work: Callable[[], dict[str, Any]]) -> None:
        """Send what the work gives, or one sentence about why it gives nothing."""
        try:
            answer = work()
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception as error:  # a bug of ours must not end the server, nor leave a client waiting
            self.server.log(f"failed: {type(error).__name__}: {error}")
            self._refuse(Refusal("the server failed on this request", 500))
        else:
            self._send(200, answer)

    def _refuse(self, refusal: Refusal) -> None:
        self.server.log(f"refused ({int(refusal.status)}): {refusal}")
        kind = HTTPStatus(refusal.status).phrase.replace(" ", "")
        self._send(refusal.status, {"error": {"message": str(refusal), "type": kind, "code": int(refusal.status)}})

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _linger(self) -> None:
        """Read on for a moment: closing on unread bytes would reset the connection, and the answer with it."""
        until = time.monotonic() + LINGER_SECONDS
        self.connection.settimeout(LINGER_SECONDS)
        while self.unread > 0 and time.monotonic() < until:
            got = len(self.rfile.read1(min(self.unread, 1 << 20)))
            self.unread = self.unread - got if got else 0

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing for every request: batches and refusals are logged."""
