"""A server of the tiny model, one that says what a test wants it to, and models that are packed however small."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from dlr_plugins.decoders import packed_linear
from dlr_plugins.serving.request import Limits
from dlr_plugins.serving.server import CompletionServer


class Served:
    """A server in threads of this process, and what it logged."""

    def __init__(self, decoder: Any, **options: Any) -> None:
        self.lines: list[str] = []
        self.server = CompletionServer(decoder, name="tiny", log=self.lines.append, **options)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url, self.port = self.server.url, self.server.server_port

    def stop(self) -> None:
        self.server.stop()
        self.thread.join()


@pytest.fixture(scope="session")
def served(tiny_decoder: Any) -> Any:
    made = Served(tiny_decoder, limits=Limits(body_bytes=1 << 20, prompts=64, positions=512))
    yield made
    made.stop()


@pytest.fixture
def serve(tiny_decoder: Any) -> Any:
    """Make servers of the tiny model with other options."""
    made: list[Served] = []

    def make(**options: Any) -> Served:
        made.append(Served(tiny_decoder, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class Scripted:
    """A stranger's server: answers with what it was given, one answer after another, the last one for ever."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers, self.asked = list(answers), []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, {"object": "list", "data": [{"id": "theirs"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                script.asked.append((self.path, dict(self.headers), body))
                answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                if answer == "silence":
                    script.quiet.wait(10)
                    return
                if answer == "hang up":
                    return
                self.reply(*(answer(body) if callable(answer) else answer))

            def reply(self, status: int, answer: Any) -> None:
                sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None:
                pass

        self.quiet = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def stop(self) -> None:
        self.quiet.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def scripted() -> Any:
    """Make strangers' servers."""
    made: list[Scripted] = []

    def make(*answers: Any) -> Scripted:
        made.append(Scripted(list(answers)))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the smallest layers are packed."""
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", 0)
