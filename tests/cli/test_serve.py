"""``dlr serve``, and a run whose completions come from it."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

SCORE = {
    "space.name": "input", "space.chart": "principal", "space.num_latents": 2, "space.latent_dim": 4,
    "space.radius": 4.0, "estimator": "score", "replay.chains": 0, "task.pool": 40, "decoder.max_new_tokens": 4,
    "assistant.width": 16, "assistant.layers": 1, "batch.questions": 2, "batch.samples": 3, "eval.questions": 5,
    "eval.prompt_questions": 3, "probe.every": 0,
}  # fmt: skip


def settings(**changes):
    chosen = {**SCORE, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def server(tiny_model):
    """The installed program serving the tiny model: its address, and the process."""
    command = [Path(sys.executable).with_name("dlr"), "serve", "--main-model", tiny_model, "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs begin with it ignored
    )  # fmt: skip
    said = process.stdout.readline()
    found = re.fullmatch(r"serving \S+ on (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C stops\)\n", said)
    assert found, said + process.stderr.read()
    yield found[1], process
    if process.poll() is None:
        process.kill()
    process.communicate()


def metrics(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "reward", "correct", "format", "tokens", "decodes", "loss", "distinct_answers", "entropy")
    return [{key: row[key] for key in kept} for row in rows]


def test_a_run_with_score_learns_from_a_server_what_it_learns_here(server, dlr, tiny_model, tmp_path):
    url, process = server
    told = {}
    for name, changes in (("hf", {}), ("remote", {"decoder.name": "remote", "decoder.url": url})):
        out = tmp_path / name
        command = ["run", "--main-model", tiny_model, "--steps", 2, "--out", out, "--json"]
        code, stdout, stderr = dlr(*command, *settings(**changes))
        assert code == 0, stderr
        told[name] = json.loads(stdout)
    ours, theirs = metrics(tmp_path / "hf"), metrics(tmp_path / "remote")
    assert len(theirs) == 2
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    for row, cells in told["hf"]["rows"].items():
        assert told["remote"]["rows"][row]["accuracy"] == cells["accuracy"], row
        assert told["remote"]["rows"][row]["tokens"] == cells["tokens"], row
    saved = json.loads((tmp_path / "remote" / "manifest.json").read_text())["config"]["decoder"]
    assert (saved["name"], saved["url"], saved["states"], saved["retries"]) == ("remote", url, "model", 4)
    code, stdout, stderr = dlr("eval", tmp_path / "remote", "--n", 3, "--json")
    assert code == 0, stderr
    with urllib.request.urlopen(url.removesuffix("/v1") + "/health") as health:
        assert json.load(health)["answered"] > 50
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert re.search(r"answered \d+ prompts, \d+ tokens, [\d.]+ at once on average\n$", process.stderr.read())


def test_a_port_that_is_taken_is_one_line(dlr, tiny_model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, out, err = dlr("serve", "--main-model", tiny_model, "--port", port)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
    assert err.count("\n") == 1


REMOTE = ["--set", "decoder.name=remote", "--set", "decoder.url=http://127.0.0.1:9/v1"]


def test_everything_that_a_server_cannot_do_is_said_at_once_and_before_it_is_asked(dlr):
    code, out, err = dlr("run", *REMOTE, "--set", "warmstart.steps=1", "--set", "eval.refiner=latentseek")
    lacks = "error: decoder 'remote' gives no gradient of the main model: "
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: decoder 'remote' takes input embeddings only, and space 'kv' changes more than those: "
        "set space.name to input or vocab",
        f"{lacks}estimator 'pathwise_greedy' needs it; use score",
        f"{lacks}a joint chart needs it; set space.chart to principal or random",
        f"{lacks}replay needs it; set replay.chains=0",
        f"{lacks}a warm start needs it; set warmstart.steps=0",
        f"{lacks}refiner 'latentseek' needs it; leave eval.refiner out",
    ]


@pytest.mark.parametrize("estimator", ["pathwise", "hybrid", "likelihood", "pathwise_greedy"])
def test_estimators_that_differentiate_the_main_model_are_refused_with_one_line(dlr, estimator):
    more = ["--set", "decoder.temperature=1"] if estimator in ("pathwise", "hybrid") else []
    code, _, err = dlr("run", *REMOTE, *settings(), "--estimator", estimator, "--set", f"estimator={estimator}", *more)
    expected = f"estimator {estimator!r} needs it; use score"
    assert (code, err) == (2, f"error: decoder 'remote' gives no gradient of the main model: {expected}\n")


def test_parts_that_ask_for_likelihoods_or_entropies_are_refused(dlr):
    code, _, err = dlr("run", *REMOTE, *settings(scorer="likelihood", reward="decisive"))
    assert code == 2
    assert "decoder 'remote' reports no entropy, which reward 'decisive' needs" in err
    assert "scorer 'likelihood' asks for likelihoods; use none, learned or random" in err
    code, _, err = dlr("baseline", "prefix", *REMOTE, *settings())
    assert code == 2
    assert err == "error: a baseline needs the main model's gradient, which decoder 'remote' does not give\n"


def test_a_server_that_is_not_there_is_one_line(dlr, tmp_path):
    code, out, err = dlr("run", *REMOTE, *settings(decoder__retries=0), "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err.startswith("error: no completions from http://127.0.0.1:9/v1: ConnectionRefusedError")
    assert err.endswith("(tried once; is the server running? dlr serve)\n")
    assert not (tmp_path / "run").exists()


def test_a_backends_own_options_are_checked_like_all_others(dlr):
    assert dlr("run", "--set", "decoder.modle=x")[2] == (
        "error: config: no option named 'decoder.modle'; did you mean 'decoder.model'?\n"
    )
    code, _, err = dlr("run", *REMOTE, *settings(decoder__timout=3))
    assert (code, err) == (2, "error: config: no option named 'decoder.timout'; did you mean 'decoder.timeout'?\n")
    code, _, err = dlr("run", *REMOTE, *settings(decoder__timeout=0))
    assert (code, err) == (2, "error: decoder 'remote': timeout: Input should be greater than 0, got 0\n")
    assert "decoder.url" in dlr("run", "--set", "decoder.url=http://x/v1")[2]  # hf has none
