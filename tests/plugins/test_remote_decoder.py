"""Decoding on a server gives what decoding here gives; what a server cannot do is said before anything is loaded."""

import json

import dlr_envs  # noqa: F401
import gymnasium
import numpy as np
import pytest
import torch
from dlr_plugins.decoders import completions
from dlr_plugins.serving import wire

from dlr_core.cost import Usage
from dlr_core.errors import ConfigError, ModelError
from dlr_core.stacking import stack

QUESTIONS = [f"What is {n} + {n * n}{' exactly' * (n % 4)}?" for n in range(12)]
SPACE = {"num_latents": 3, "latent_dim": 4, "chart": "random", "radius": 4.0, "anchor": "Let me see:"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(completions, "PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def connect(host_of_module, served, tiny_model):
    """Make remote decoders of the tiny model's server."""

    def make(**options):
        given = {"model": str(tiny_model), "url": served.url, **options}
        return host_of_module.create("decoder", "remote", given)

    return make


@pytest.fixture(scope="module")
def host_of_module():
    from dlr_core import PluginHost

    return PluginHost.from_entry_points()


@pytest.fixture(scope="module")
def remote(connect):
    return connect(rows=3, requests=2)


@pytest.fixture(scope="module")
def hollow(connect):
    """One that reads nothing of the model but its embeddings."""
    return connect(states="embeddings")


def latents(rows, seed=0, scale=0.8):
    return torch.tanh(scale * torch.randn(rows, 3, 4, generator=torch.Generator().manual_seed(seed)))


def under(decoder, space, actions, limit=10, **how):
    cache = decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, space.num_latents)
    return decoder.decode(space.inject(cache, actions), limit, **how)


def rows_of(done):
    return [ids[mask.bool()].tolist() for ids, mask in zip(done.ids_NL, done.mask_NL, strict=True)]


# ---- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["input", "vocab"])
@pytest.mark.parametrize("states", ["model", "embeddings"])
def test_greedy_completions_under_latents_are_those_of_hf_token_for_token(
    host, tiny_decoder, remote, hollow, name, states
):
    there = remote if states == "model" else hollow
    ours, theirs = (host.create("space", name, SPACE, decoder=decoder) for decoder in (tiny_decoder, there))
    for seed in range(2):
        actions = latents(len(QUESTIONS), seed)
        expected, got = under(tiny_decoder, ours, actions), under(there, theirs, actions)
        assert rows_of(got) == rows_of(expected)
        assert got.texts == expected.texts
        assert torch.equal(got.ids_NL, expected.ids_NL)
        assert torch.equal(got.mask_NL, expected.mask_NL)
        assert torch.equal(got.ended_N, expected.ended_N)
    assert len({tuple(ids) for ids in rows_of(expected)}) > 3


def test_plain_prompts_and_openings_are_completed_as_hf_does(tiny_decoder, remote):
    for text in ("", " Well", " Let me see:"):
        ids = tiny_decoder.encode(text)
        expected, got = (d.decode(d.prefill(QUESTIONS, ids[:-1], ids[-1:], 0), 6) for d in (tiny_decoder, remote))
        assert rows_of(got) == rows_of(expected)


def test_states_and_observations_are_those_of_hf(host, tiny_decoder, remote):
    ours, theirs = (host.create("space", "input", SPACE, decoder=decoder) for decoder in (tiny_decoder, remote))
    made = [d.prefill(QUESTIONS, ours.anchor_ids, [], 3) for d in (tiny_decoder, remote)]
    assert torch.equal(made[0].states_NSH, made[1].states_NSH)
    assert torch.equal(made[0].mask_NS, made[1].mask_NS)
    actions = latents(len(QUESTIONS))
    for done in range(3):
        a, b = (s.observe(c, actions[:, :done]) for s, c in zip((ours, theirs), made, strict=True))
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
    assert remote.fingerprint() == tiny_decoder.fingerprint()
    assert remote.flops_per_token == tiny_decoder.flops_per_token


def test_embeddings_alone_stand_for_states_where_the_model_is_not_here(host, tiny_decoder, hollow):
    cache = hollow.prefill(QUESTIONS, [], [5], 0)
    table = tiny_decoder.embedding_table()
    assert torch.equal(hollow.embedding_table(), table)
    for row, question in enumerate(QUESTIONS):
        ids = tiny_decoder.prompt_ids(question)
        assert hollow.prompt_ids(question) == ids
        assert torch.equal(cache.states_NSH[row][cache.mask_NS[row].bool()], table[ids])
    assert torch.equal(cache.pending_NPH[:, 0], table[5].expand(len(QUESTIONS), -1))
    space = host.create("space", "input", SPACE, decoder=hollow)
    prompt = hollow.prefill(QUESTIONS, space.anchor_ids, [], 3)
    bound = hollow.state_bound()
    for done in range(3):
        seen = space.observe(prompt, latents(len(QUESTIONS))[:, :done])
        assert torch.equal(seen, table[space.anchor_ids[len(space.anchor_ids) - 3 + done]].expand_as(seen))
        assert bool((seen.abs() <= bound).all())
    assert hollow.flops_per_token == tiny_decoder.flops_per_token
    assert hollow.fingerprint() != tiny_decoder.fingerprint()
    assert not hasattr(hollow.local, "model")


def test_a_prompt_survives_selecting_cropping_and_stacking(tiny_decoder, remote):
    """What search, replay and the spaces do with prompts."""
    cache = remote.prefill(QUESTIONS, [], [], 0)
    whole = rows_of(remote.decode(cache, 5))
    order = torch.tensor([3, 0, 3])
    assert rows_of(remote.decode(cache.select(order), 5)) == [whole[i] for i in order.tolist()]
    singles = [cache.select(torch.tensor([n])) for n in range(3)] + [remote.prefill(["Hi"], [], [], 0)]
    assert rows_of(remote.decode(stack(singles), 5))[:3] == whole[:3]


def test_log_probs_come_with_completions_and_are_the_models(tiny_decoder, remote):
    done = remote.decode(remote.prefill(QUESTIONS, [], [], 0), 6)
    with torch.no_grad():
        cache = tiny_decoder.prefill(QUESTIONS, [], [], 0)
        expected = tiny_decoder.log_prob(cache, done.ids_NL, done.mask_NL)
    torch.testing.assert_close(done.log_prob_NL.sum(1), expected, atol=5e-3, rtol=1e-3)
    assert bool((done.log_prob_NL[done.mask_NL == 0] == 0).all())
    assert tiny_decoder.decode(cache, 2).log_prob_NL is None


def test_sampling_is_decided_by_each_rows_own_generator(remote):
    def drawn(seeds):
        generators = [np.random.default_rng(seed) for seed in seeds]
        return rows_of(remote.decode(remote.prefill(QUESTIONS[:4], [], [], 0), 6, 1.5, generators))

    first = drawn(range(4))
    assert drawn(range(4)) == first
    assert drawn(range(10, 14)) != first
    same = remote.prefill(QUESTIONS[:1] * 6, [], [], 0)
    generators = [np.random.default_rng(seed) for seed in range(6)]
    assert len({tuple(ids) for ids in rows_of(remote.decode(same, 6, 2.0, generators))}) > 1
    with pytest.raises(ConfigError, match="one generator per row: expected 4"):
        remote.decode(remote.prefill(QUESTIONS[:4], [], [], 0), 6, 1.0, [np.random.default_rng(0)])


def test_what_the_server_reads_and_writes_is_on_the_account(remote):
    cache = remote.prefill(QUESTIONS, [], [], 0)
    before = remote.usage.copy()
    done = remote.decode(cache, 6)
    written = int(done.mask_NL.sum())
    read = int(cache.mask_NS.sum()) + len(QUESTIONS)
    assert remote.usage.since(before) == Usage(prefilled=read, decoded=written - len(QUESTIONS), logits=written)


def test_environments_take_it_by_name(served, tiny_model):
    decoder = {"name": "remote", "model": str(tiny_model), "url": served.url}
    kwargs = {"space": {"name": "input", **SPACE}, "max_new_tokens": 4}
    there = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=3, decoder=decoder, **kwargs)
    here = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=3, decoder=str(tiny_model), **kwargs)
    action = latents(3).flatten(1).numpy()
    for env in (there, here):
        env.reset(seed=0)
    outcomes = [env.step(action) for env in (there, here)]
    assert outcomes[0][4]["final_info"]["completion"].tolist() == outcomes[1][4]["final_info"]["completion"].tolist()
    np.testing.assert_allclose(outcomes[0][0], outcomes[1][0], atol=1e-3)
    actions = torch.zeros(3, 3, 4)
    with pytest.raises(ConfigError, match="cannot score given completions"):
        there.unwrapped.log_prob(actions, there.unwrapped.finished.completions.ids_NL)


@pytest.mark.parametrize("name", ["kv", "steer"])
def test_spaces_that_change_more_than_embeddings_are_refused(host, hollow, name):
    def run():
        space = host.create("space", name, {"num_latents": 2, "latent_dim": 4, "chart": "random"}, decoder=hollow)
        under(hollow, space, torch.zeros(len(QUESTIONS), 2, 4))

    with pytest.raises(ConfigError, match="use the space input or vocab"):
        run()


# ---- strangers' servers --------------------------------------------------------------------------------------------


def completion(body, **changes):
    """What a server that knows one answer says to every prompt."""
    text = {"text": "x", "finish_reason": "length", "token_ids": [7, 8], "logprobs": None}
    return 200, {"choices": [{"index": n, **text, **changes} for n in range(len(body["prompt_embeds"]))]}


def stranger(host, tiny_model, server, **options):
    given = {
        "model": str(tiny_model),
        "url": server.url,
        "states": "embeddings",
        "retries": 2,
        "requests": 1,
        **options,
    }
    return host.create("decoder", "remote", given)


def test_a_request_is_what_vllm_expects(host, tiny_model, scripted, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    server = scripted(completion)
    decoder = stranger(host, tiny_model, server)
    cache = decoder.prefill(["Hi"], [], [], 0)
    done = decoder.decode(cache, 5, 0.5, [np.random.default_rng(0)])
    page, headers, body = server.asked[-1]
    assert page == "/v1/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "theirs"
    (sent,) = body["prompt_embeds"]
    table = decoder.embedding_table()
    assert torch.equal(wire.decode(sent, 64, 999), table[decoder.prompt_ids("Hi")])
    asked = {"max_tokens": 5, "temperature": 0.5, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert asked.items() <= body.items()
    assert isinstance(body["seed"], int)
    assert body["stop_token_ids"] == decoder.end_ids.tolist()
    assert (body["logprobs"], body["return_token_ids"], body["return_tokens_as_token_ids"]) == (0, True, True)
    assert (rows_of(done), done.ended_N.tolist(), done.log_prob_NL) == ([[7, 8]], [False], None)
    assert "seed" not in server.asked[0][2]


def test_token_ids_are_found_wherever_a_server_puts_them(host, tiny_model, scripted):
    named = {"tokens": ["token_id:7", "token_id:9"], "token_logprobs": [-0.5, -1.0]}
    decoder = stranger(host, tiny_model, scripted(lambda body: completion(body, token_ids=None, logprobs=named)))
    done = decoder.decode(decoder.prefill(["Hi"], [], [], 0), 5)
    assert rows_of(done) == [[7, 9]]
    assert done.log_prob_NL.tolist() == [[-0.5, -1.0]]
    texts = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0]}
    with pytest.raises(ModelError, match="gives no token ids with its completions; vLLM does from version"):
        stranger(host, tiny_model, scripted(lambda body: completion(body, token_ids=None, logprobs=texts)))


def test_an_end_token_that_a_server_keeps_to_itself_is_put_back(host, tiny_model, scripted):
    decoder = stranger(host, tiny_model, scripted(lambda body: completion(body, finish_reason="stop")))
    end = int(decoder.end_ids[0])
    done = decoder.decode(decoder.prefill(["Hi", "Hello"], [], [], 0), 5)
    assert (rows_of(done), done.ended_N.tolist()) == ([[7, 8, end]] * 2, [True, True])


def test_answers_are_put_in_the_order_of_their_indices(host, tiny_model, scripted):
    def backwards(body):
        count = len(body["prompt_embeds"])
        one = {"text": "x", "finish_reason": "length", "logprobs": None}
        return 200, {"choices": [{"index": n, **one, "token_ids": [10 + n]} for n in reversed(range(count))]}

    decoder = stranger(host, tiny_model, scripted(backwards))
    assert rows_of(decoder.decode(decoder.prefill(QUESTIONS[:3], [], [], 0), 5)) == [[10], [11], [12]]


FLAG = {"error": {"message": "You must set `--enable-prompt-embeds` to input `prompt_embeds`.", "code": 400}}


def refusal(host, tiny_model, server, **options):
    with pytest.raises(ModelError) as caught:
        stranger(host, tiny_model, server, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_without_the_flag_is_named_with_what_to_type(host, tiny_model, scripted):
    server = scripted((400, FLAG))
    said = refusal(host, tiny_model, server)
    assert said == f"{server.url} takes no prompt embeddings: start it with vllm serve MODEL --enable-prompt-embeds"
    assert len(server.asked) == 1  # it would say the same again
    old = scripted((400, {"object": "error", "message": FLAG["error"]["message"], "code": 400}))
    assert "--enable-prompt-embeds" in refusal(host, tiny_model, old)


def test_what_a_server_refuses_is_said_once_in_its_own_words(host, tiny_model, scripted):
    server = scripted((400, {"error": {"message": "prompt is too\nlong"}}))
    assert refusal(host, tiny_model, server) == f"{server.url} refused (400): prompt is too long"
    assert len(server.asked) == 1
    assert "set VLLM_API_KEY" in refusal(host, tiny_model, scripted((401, {"error": "Unauthorized"})))
    assert "refused (422): not what" in refusal(host, tiny_model, scripted((422, {"detail": "not what"})))


@pytest.mark.parametrize("failure", [(503, {"error": {"message": "busy"}}), (500, b"oops"), "hang up", (200, b"{")])
def test_a_failure_is_tried_again_and_no_more_than_asked(host, tiny_model, scripted, failure):
    server = scripted(failure, failure, completion)
    decoder = stranger(host, tiny_model, server)
    assert len(server.asked) == 3
    assert rows_of(decoder.decode(decoder.prefill(["Hi"], [], [], 0), 5)) == [[7, 8]]
    never = scripted(failure)
    said = refusal(host, tiny_model, never)
    assert said.startswith(f"no completions from {never.url}: ")
    assert said.endswith("(tried 3 times; is the server running? dlr serve)")
    assert len(never.asked) == 3


def test_a_silent_server_is_waited_for_no_longer_than_asked(host, tiny_model, scripted):
    server = scripted("silence")
    said = refusal(host, tiny_model, server, timeout=0.1, retries=1)
    assert "no answer within decoder.timeout=0.1 s (tried 2 times;" in said
    assert len(server.asked) == 2
    server = scripted("silence", completion)
    stranger(host, tiny_model, server, timeout=0.2, retries=1)


def test_a_server_that_is_not_there_is_said_before_any_model_is_loaded(host, tmp_path):
    with pytest.raises(ModelError, match=r"no completions from http://127.0.0.1:9/v1: ConnectionRefusedError"):
        host.create("decoder", "remote", {"url": "http://127.0.0.1:9/v1", "model": str(tmp_path), "retries": 0})
    for url in ("127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:port/v1"):
        with pytest.raises(ConfigError, match=r"decoder.url: expected something like http"):
            host.create("decoder", "remote", {"url": url})


def test_too_few_answers_are_an_error(host, tiny_model, scripted):
    assert "expected 3 completions, got 0" in refusal(host, tiny_model, scripted((200, {"choices": []})))


def test_another_model_behind_the_server_is_noticed(host, served, other_model, tiny_model):
    given = {"url": served.url, "model": str(other_model)}
    with pytest.raises(ModelError, match=r"serves another model than decoder.model=.* nats a token"):
        host.create("decoder", "remote", given)
    with pytest.raises(ModelError, match=r"serves tiny, not decoder.served_model='huge'"):
        host.create("decoder", "remote", {"url": served.url, "model": str(tiny_model), "served_model": "huge"})


def test_a_table_is_found_in_a_sharded_or_older_checkpoint_and_nowhere_else(host, served, tiny_model, tmp_path):
    import shutil

    from dlr_plugins.decoders.table import EmbeddingTable
    from safetensors.torch import load_file, save_file

    whole = load_file(tiny_model / "model.safetensors")
    name = "model.embed_tokens.weight"
    sharded = tmp_path / "sharded"
    shutil.copytree(tiny_model, sharded)
    (sharded / "model.safetensors").unlink()
    save_file({name.removeprefix("model."): whole[name]}, sharded / "a.safetensors")
    index = {"metadata": {}, "weight_map": {name.removeprefix("model."): "a.safetensors", "lm_head.weight": "gone"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    found = EmbeddingTable(str(sharded), "cpu", "auto")
    assert torch.equal(found.embedding_table(), whole[name])
    assert found.end_ids.tolist() == EmbeddingTable(str(tiny_model), "cpu", "auto").end_ids.tolist()
    save_file({"lm_head.weight": whole["lm_head.weight"]}, sharded / "a.safetensors")
    for folder in (sharded, tmp_path):
        with pytest.raises(ModelError, match=r"decoder.states=embeddings needs a model folder") as caught:
            EmbeddingTable(str(folder), "cpu", "auto")
        assert "\n" not in str(caught.value)
