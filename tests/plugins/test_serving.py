"""The server: everybody gets their own answer, together with everybody else, and nobody's request ends it."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from dlr_plugins.serving import wire
from dlr_plugins.serving.batcher import Batcher, Row
from dlr_plugins.serving.refusal import Refusal

JSON = {"Content-Type": "application/json"}


def ask(served, body, page="/v1/completions", headers=JSON, method="POST"):
    """Status and JSON answer of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, page, sent, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text)


def prompt(decoder, question):
    """A question's input embeddings."""
    return decoder.embedding_table()[torch.tensor(decoder.prompt_ids(question))]


def request(*embeds, **changes):
    fields = {"prompt_embeds": [wire.encode(one) for one in embeds], "max_tokens": 8, "temperature": 0}
    return {**fields, "return_token_ids": True, **changes}


def expected(decoder, questions, limit=8):
    """What the decoder itself answers."""
    done = decoder.decode(decoder.prefill(questions, [], [], 0), limit)
    return [ids[mask.bool()].tolist() for ids, mask in zip(done.ids_NL, done.mask_NL, strict=True)], done.texts


QUESTIONS = [f"What is {n} + {n * n}{' exactly' * (n % 4)}?" for n in range(24)]


def test_a_request_is_answered_as_vllm_answers_it(served, tiny_decoder):
    embeds = [prompt(tiny_decoder, text) for text in QUESTIONS[:3]]
    status, answer = ask(served, request(*embeds, model="tiny", prompt="", logprobs=0, top_p=1.0, top_k=-1, stop=[]))
    assert status == 200
    ids, texts = expected(tiny_decoder, QUESTIONS[:3])
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["token_ids"] for choice in answer["choices"]] == ids
    assert [choice["text"] for choice in answer["choices"]] == texts
    for choice in answer["choices"]:
        stopped = choice["token_ids"][-1] in tiny_decoder.end_ids.tolist()
        assert choice["finish_reason"] == ("stop" if stopped else "length")
        named = choice["logprobs"]
        assert named["tokens"] == [tiny_decoder.token(token) for token in choice["token_ids"]]
        assert len(named["token_logprobs"]) == len(named["text_offset"]) == len(choice["token_ids"])
        assert all(nats <= 0 for nats in named["token_logprobs"])
    written = sum(map(len, ids))
    read = sum(map(len, embeds))
    assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")


def test_tokens_are_named_by_id_and_ids_left_out_as_asked(served, tiny_decoder):
    body = request(prompt(tiny_decoder, "Hi"), logprobs=0, return_token_ids=False, return_tokens_as_token_ids=True)
    (choice,) = ask(served, body)[1]["choices"]
    (ids,), _ = expected(tiny_decoder, ["Hi"])
    assert choice["token_ids"] is None
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in ids]
    assert ask(served, request(prompt(tiny_decoder, "Hi")))[1]["choices"][0]["logprobs"] is None


def test_log_probs_are_the_models_own(served, tiny_decoder):
    body = request(prompt(tiny_decoder, "Hi"), logprobs=0, temperature=0.7, seed=3)
    (choice,) = ask(served, body)[1]["choices"]
    ids = torch.tensor([choice["token_ids"]])
    cache = tiny_decoder.prefill(["Hi"], [], [], 0)
    with torch.no_grad():
        total = float(tiny_decoder.log_prob(cache, ids, torch.ones(ids.shape)))
    assert sum(choice["logprobs"]["token_logprobs"]) == pytest.approx(total, abs=1e-3)


def test_a_prompt_of_one_position_is_completed_alone_and_beside_longer_ones(served, tiny_decoder):
    embeds = prompt(tiny_decoder, "Hi")
    short, long = embeds[-1:], embeds
    alone = ask(served, request(short))[1]["choices"][0]["token_ids"]
    both = ask(served, request(long, short))[1]["choices"]
    with torch.no_grad():
        logits = tiny_decoder.model(inputs_embeds=short[None]).logits[0, -1]
    assert alone[0] == int(logits.argmax())
    assert both[1]["token_ids"] == alone
    assert both[0]["token_ids"] == expected(tiny_decoder, ["Hi"])[0][0]


def test_tokens_that_a_request_names_end_its_completion_and_nobody_elses(served, tiny_decoder):
    place, ids, text = next(
        (n, ids, text)
        for n, (ids, text) in enumerate(zip(*expected(tiny_decoder, QUESTIONS), strict=True))
        if len(ids) > 3
    )
    embeds = prompt(tiny_decoder, QUESTIONS[place])
    (choice,) = ask(served, request(embeds, stop_token_ids=[ids[1]]))[1]["choices"]
    first = ids.index(ids[1])
    assert choice["token_ids"] == ids[: first + 1]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ids[1])
    assert text.startswith(choice["text"])
    assert ask(served, request(embeds))[1]["choices"][0]["token_ids"] == ids


def test_rows_of_one_batch_have_their_own_ends_and_limits(tiny_decoder):
    place, ids = next((n, ids) for n, ids in enumerate(expected(tiny_decoder, QUESTIONS)[0]) if len(set(ids)) > 3)
    embeds, generator = prompt(tiny_decoder, QUESTIONS[place]), np.random.default_rng(0)
    ends = [frozenset(), frozenset(ids[2:3]), frozenset(ids[1:2]), frozenset()]
    rows = [Row(embeds, limit, 0.0, own, generator) for limit, own in zip([5, 5, 5, 2], ends, strict=True)]
    done = completed(Batcher(tiny_decoder), rows)
    lengths = [5, ids.index(ids[2]) + 1, ids.index(ids[1]) + 1, 2]
    assert [len(one.ids) for one in done] == lengths
    assert [one.stopped for one in done] == [False, True, True, False]
    assert all(one.ids[:2] == ids[:2][: len(one.ids)] for one in done)


def test_a_seed_decides_what_is_sampled_and_a_temperature_is_each_requests_own(served, tiny_decoder):
    embeds = prompt(tiny_decoder, "Say something")

    def drawn(seed, temperature=2.0):
        body = request(embeds, temperature=temperature, seed=seed)
        return ask(served, body)[1]["choices"][0]["token_ids"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(drawn, [1, 2, 3, 4, 1, 2, 3, 4]))
        greedy = list(pool.map(drawn, range(8), [0, 1e-4] * 4))  # nearly no temperature is nearly greedy
    assert found[:4] == found[4:]
    assert len({tuple(ids) for ids in found}) > 1
    assert all(ids == expected(tiny_decoder, ["Say something"])[0][0] for ids in greedy)


def test_eight_clients_at_once_share_full_batches_and_each_gets_its_own_answer(serve, tiny_decoder):
    one = serve(rows=8)
    ids, _ = expected(tiny_decoder, QUESTIONS)
    barrier = threading.Barrier(8)

    def client(number):
        found = {}
        barrier.wait()
        for place in range(number, len(QUESTIONS), 8):
            body = request(prompt(tiny_decoder, QUESTIONS[place]), max_tokens=8)
            found[place] = ask(one, body)[1]["choices"][0]["token_ids"]
        return found

    with ThreadPoolExecutor(8) as pool:
        found = {place: answer for part in pool.map(client, range(8)) for place, answer in part.items()}
    assert [found[place] for place in range(len(QUESTIONS))] == ids
    assert len({tuple(answer) for answer in ids}) > 4  # mixed-up answers would show
    assert one.server.health()["answered"] == len(QUESTIONS)
    assert any(line.startswith("batch of ") for line in one.lines)


def completed(batcher, rows):
    """What rows are answered that are all queued before the thread may look."""
    with batcher._news:
        batcher.submit(rows)
    done = [row.answer.result(60) for row in rows]
    batcher.close(60)
    return done


def test_prompts_join_between_two_tokens_and_leave_when_they_end(tiny_decoder):
    lines = []
    batcher = Batcher(tiny_decoder, rows=8, log=lines.append)
    rows = [
        Row(prompt(tiny_decoder, text), limit, 0.0, frozenset(), np.random.default_rng(0))
        for text, limit in zip(QUESTIONS[:12], [3, 40, 5, 40, 3, 40, 5, 40, 40, 40, 3, 40], strict=True)
    ]
    done = completed(batcher, rows)
    assert [len(one.ids) for one in done] == [row.limit for row in rows]
    for row, one, text in zip(rows, done, QUESTIONS, strict=False):
        cache = tiny_decoder.prefill([text], [], [], 0)
        ids = torch.tensor([one.ids])
        with torch.no_grad():
            total = float(tiny_decoder.log_prob(cache, ids, torch.ones(ids.shape)))
        assert sum(one.log_probs) == pytest.approx(total, abs=2e-2), row.limit
    assert lines[0].startswith("batch of 8: 8 joined")
    assert batcher.counts.mean_batch > 4
    assert batcher.counts.tokens == sum(row.limit for row in rows)


def test_a_batch_that_fails_fails_its_own_prompts_and_the_next_is_completed(tiny_decoder, monkeypatch):
    batcher = Batcher(tiny_decoder)
    good = prompt(tiny_decoder, "Hi")
    bad = Row(good[:, :3], 4, 0.0, frozenset(), np.random.default_rng(0))
    batcher.submit([bad])
    with pytest.raises(Refusal, match="could not complete"):
        bad.answer.result(60)
    fine = Row(good, 4, 0.0, frozenset(), np.random.default_rng(0))
    batcher.submit([fine])
    assert len(fine.answer.result(60).ids) == 4
    batcher.close(60)
    with pytest.raises(Refusal, match="being stopped"):
        batcher.submit([fine])


def test_a_full_queue_is_refused_for_now(tiny_decoder):
    batcher = Batcher(tiny_decoder, waiting=2)
    rows = [Row(prompt(tiny_decoder, "Hi"), 1, 0.0, frozenset(), np.random.default_rng(0)) for _ in range(3)]
    with pytest.raises(Refusal, match="ask again later") as caught:
        batcher.submit(rows)
    assert caught.value.status == 429
    batcher.close(60)


def test_stopping_finishes_what_was_asked(serve, tiny_decoder, monkeypatch):
    one = serve()
    batcher, gate, step = one.server.batcher, threading.Event(), one.server.batcher._step
    monkeypatch.setattr(batcher, "_step", lambda: (gate.wait(60), step()))
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(ask, one, request(prompt(tiny_decoder, text))) for text in QUESTIONS[:4]]
        while sum(batcher.load) < 4:
            time.sleep(0.001)
        stopped = pool.submit(one.server.stop)
        gate.set()
        answers = [each.result(60) for each in asked]
        stopped.result(60)
    assert [answer["choices"][0]["token_ids"] for _, answer in answers] == expected(tiny_decoder, QUESTIONS[:4])[0]
    with pytest.raises(ConnectionError):
        ask(one, request(prompt(tiny_decoder, "Hi")))


# ---- what is refused -----------------------------------------------------------------------------------------------


def lives(served, decoder):
    """Whether the server still answers, rightly."""
    status, answer = ask(served, request(prompt(decoder, "Hi")))
    return status == 200 and answer["choices"][0]["token_ids"] == expected(decoder, ["Hi"])[0][0]


def sentence(status, answer):
    message = answer["error"]["message"]
    assert answer["error"]["code"] == status
    assert message
    assert "\n" not in message
    assert len(message) < 400
    return message


OK = wire.encode(torch.zeros(3, 64))


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"", 400, "does not parse"),
        (b"{", 400, "does not parse"),
        (b"\xff\xfe", 400, "does not parse"),
        (b"[" * 100_000, 400, "does not parse"),
        (b"[1]", 400, "expected a JSON object, got list"),
        ({}, 400, "prompt_embeds: Field required"),
        ({"prompt": "Hello"}, 400, "prompt is not offered here"),
        ({"prompt_embeds": 3}, 400, "prompt_embeds"),
        ({"prompt_embeds": []}, 400, "expected 1 to 64 prompts, got 0"),
        ({"prompt_embeds": [OK] * 65}, 400, "expected 1 to 64 prompts, got 65"),
        ({"prompt_embeds": [OK, "?"]}, 400, "not base64"),
        ({"prompt_embeds": wire.encode(torch.zeros(3, 65))}, 400, "hidden size 64, got 65"),
        ({"prompt_embeds": wire.encode(torch.zeros(3, 64, dtype=torch.int32))}, 400, "got torch IntStorage"),
        ({"prompt_embeds": wire.encode(torch.full((3, 64), torch.nan))}, 400, "expected finite numbers"),
        ({"prompt_embeds": wire.encode(torch.zeros(600, 64))}, 400, "expected 1 to 496 positions, got 600"),
        ({"prompt_embeds": OK, "model": "gpt"}, 404, "The model `gpt` does not exist; served here: tiny"),
        ({"prompt_embeds": OK, "max_tokens": 0}, 400, "max_tokens"),
        ({"prompt_embeds": OK, "max_tokens": 512}, 400, "max_tokens: expected at most 511, got 512"),
        ({"prompt_embeds": OK, "max_tokens": 10**30}, 400, "max_tokens"),
        ({"prompt_embeds": OK, "temperature": -1}, 400, "temperature"),
        (b'{"prompt_embeds": "", "temperature": NaN}', 400, "temperature"),
        ({"prompt_embeds": OK, "seed": 2**70}, 400, "seed"),
        ({"prompt_embeds": OK, "top_p": 0.9}, 400, "top_p is not offered here: expected 1, got 0.9"),
        ({"prompt_embeds": OK, "stream": True}, 400, "stream is not offered here"),
        ({"prompt_embeds": OK, "n": 4}, 400, "n is not offered here"),
        ({"prompt_embeds": OK, "logprobs": 5}, 400, "logprobs"),
        ({"prompt_embeds": OK, "temprature": 1}, 400, "no field named 'temprature'; did you mean 'temperature'?"),
    ],
)
def test_a_malformed_request_gets_one_sentence_and_the_server_lives_on(served, tiny_decoder, body, status, expected):
    got, answer = ask(served, body)
    assert (got, expected in sentence(got, answer)) == (status, True), answer
    assert lives(served, tiny_decoder)


def test_other_pages_types_and_methods_are_refused(served, tiny_decoder):
    assert ask(served, {}, page="/v1/chat/completions")[0] == 404
    assert ask(served, None, page="/nowhere", method="GET")[0] == 404
    assert ask(served, {"prompt_embeds": OK}, headers={"Content-Type": "text/plain"})[0] == 415
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("DELETE", "/v1/models")
    assert connection.getresponse().status == 501
    connection.close()
    assert lives(served, tiny_decoder)


def raw(served, head, body=b"", *, close=False):
    """The status line that bytes on a socket are answered with."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as line:
        line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if close:
            line.shutdown(socket.SHUT_WR)
        return line.makefile("rb").read().decode(errors="replace")


POST = "POST /v1/completions HTTP/1.1\nHost: x\nContent-Type: application/json"


def test_a_body_of_a_gigabyte_is_refused_by_its_announcement(served, tiny_decoder):
    for more in ("", "\nExpect: 100-continue"):
        answer = raw(served, f"{POST}\nContent-Length: {1 << 30}{more}", close=True)
        assert answer.startswith("HTTP/1.1 413")
        assert "expected a body of at most 1048576 bytes, got 1073741824" in answer
    assert lives(served, tiny_decoder)


def test_a_client_that_sends_a_large_body_all_the_same_reads_why_it_was_refused(served, tiny_decoder):
    status, answer = ask(served, b" " * (5 << 20))
    assert status == 413
    assert "at most 1048576 bytes, got 5242880" in sentence(status, answer)
    assert lives(served, tiny_decoder)


def test_a_truncated_body_is_refused(served, tiny_decoder):
    answer = raw(served, f"{POST}\nContent-Length: 1000", b'{"prompt_embeds": "', close=True)
    assert answer.startswith("HTTP/1.1 400")
    assert "the body ended after 19 of 1000 bytes" in answer
    assert lives(served, tiny_decoder)


def test_a_body_of_unknown_or_nonsensical_length_is_refused(served, tiny_decoder):
    assert raw(served, POST).startswith("HTTP/1.1 411")
    assert raw(served, f"{POST}\nTransfer-Encoding: chunked", b"0\r\n\r\n").startswith("HTTP/1.1 411")
    for length in ("-1", "ten", "1e3", "١"):
        assert raw(served, f"{POST}\nContent-Length: {length}").startswith("HTTP/1.1 400")
    assert "Bad request" in raw(served, "nonsense")
    assert lives(served, tiny_decoder)


def test_a_client_that_stalls_or_goes_away_harms_nobody(serve, tiny_decoder, monkeypatch):
    one = serve()
    monkeypatch.setattr("dlr_plugins.serving.server._Handler.timeout", 0.05)
    assert raw(one, f"{POST}\nContent-Length: 100", b"{").startswith("HTTP/1.1 408")
    body = json.dumps(request(prompt(tiny_decoder, "Hi"))).encode()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", one.port)) as line:
            line.sendall(f"{POST}\nContent-Length: {len(body)}\n\n".replace("\n", "\r\n").encode() + body)
    assert lives(one, tiny_decoder)


def test_a_key_is_asked_for_where_one_is_set(serve, tiny_decoder):
    one = serve(key="secret")
    body = request(prompt(tiny_decoder, "Hi"))
    assert ask(one, body)[0] == 401
    assert ask(one, body, headers={**JSON, "Authorization": "Bearer secrets"})[0] == 401
    assert ask(one, body, headers={**JSON, "Authorization": "Bearer secret"})[0] == 200


def test_only_this_machine_is_let_in_unless_told_otherwise(served):
    assert served.server.server_address[0] == "127.0.0.1"


def test_health_and_models_are_told(served):
    status, answer = ask(served, None, page="/v1/models", method="GET")
    assert (status, answer["data"][0]["id"], answer["data"][0]["max_model_len"]) == (200, "tiny", 512)
    status, answer = ask(served, None, page="/health", method="GET")
    assert (status, answer["status"]) == (200, "ok")
