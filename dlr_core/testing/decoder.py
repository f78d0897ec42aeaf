"""The check of decoder backends: each loads a tiny random model and is held to what environments rely on."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlr_core.records import Completions, PromptCache
from dlr_core.testing.checks import require
from dlr_core.testing.tiny import tiny_model

QUESTIONS = ["How much is 5 + 6?", "And 7?", "Name a number between 20 and 30, please."]
LENGTH = 6
SEVERAL = 3
CLOSE = 2e-3


def decoder(build: Callable[[dict[str, Any]], Any]) -> None:
    """Prompts and completions that depend on themselves alone, honest likelihoods, an account, a frozen model.

    Args:
        build: makes a backend of ``{"model": folder}``.
    """
    with tempfile.TemporaryDirectory() as folder:
        part = build({"model": str(tiny_model(Path(folder)))})
    before = part.fingerprint()
    require(isinstance(before, str) and len(before) == 64, "fingerprint: expected a SHA-256 in hexadecimal")
    anchor = part.encode(" Let me")
    require(len(anchor) > 2 and all(isinstance(token, int) for token in anchor), "encode: expected token ids")
    require(part.embedding_table().shape[1] == part.hidden_size, "embedding_table: expected (V, H)")
    require(part.state_bound().shape == (part.hidden_size,), "state_bound: expected (H,)")

    def prompts(questions: list[str]) -> PromptCache:
        cache: PromptCache = part.prefill(questions, anchor[:-1], anchor[-1:], 2)
        return cache

    used = part.usage.copy()
    cache = prompts(QUESTIONS)
    _prompts(part, cache, prompts)
    kept = [tensor.clone() for tensor in (*cache.keys, *cache.values, cache.mask_NS, cache.pending_NPH)]
    done = part.decode(cache, LENGTH)
    _completions(part, cache, done)
    _sampling(part, cache)
    _different(part, cache)
    _likelihoods(part, cache, done)
    now = [*cache.keys, *cache.values, cache.mask_NS, cache.pending_NPH]
    require(all(torch.equal(x, y) for x, y in zip(kept, now, strict=True)), "a cache was changed in place")
    spent = part.usage.since(used)
    counted = min(spent.prefilled, spent.decoded, spent.scored, spent.backpropagated, spent.logits)
    require(counted > 0, "usage: prefilled, decoded, scored, backpropagated and logits must be counted")
    require(part.fingerprint() == before, "the frozen model was changed")


def _prompts(part: Any, cache: PromptCache, prompts: Callable[[list[str]], PromptCache]) -> None:
    require(cache.num_latents == 2 and cache.pending_NPH.shape[1] == 1, "prefill: latents or pending tokens are lost")
    layers = [(key.shape[1], key.shape[3]) for key in cache.keys]
    require(layers == [tuple(size) for size in part.kv_sizes], "prefill: keys are not of kv_sizes")
    for row, question in enumerate(QUESTIONS):
        alone, real = prompts([question]), cache.mask_NS[row].bool()
        same = _close(cache.states_NSH[row][real], alone.states_NSH[0][alone.mask_NS[0].bool()])
        require(same, "prefill: a prompt's states must not depend on the rest of the batch")
    states = part.extend(cache, cache.pending_NPH)
    require(states.shape == (cache.rows, 1, part.hidden_size), "extend: expected one state per position fed")
    grown = part.grow(cache, cache.pending_NPH)
    require(_close(grown.states_NSH[:, -1:], states), "grow: states must be those that extend gives")
    require(grown.mask_NS.shape[1] == cache.mask_NS.shape[1] + 1, "grow: the cache must hold what was fed")
    keys = cache.keys[0].transpose(1, 2)
    back = part.rotate(part.rotate(keys, cache.positions_NS), -cache.positions_NS)
    require(_close(back, keys), "rotate: turning back must undo turning")


def _completions(part: Any, cache: PromptCache, done: Completions) -> None:
    require(len(done.texts) == cache.rows and done.ids_NL.shape == done.mask_NL.shape, "decode: one completion a row")
    require(torch.equal(done.ids_NL, part.decode(cache, LENGTH).ids_NL), "decode: two greedy completions differ")
    for row in range(cache.rows):
        alone = part.decode(cache.select(torch.tensor([row], device=cache.mask_NS.device)), LENGTH)
        require(alone.texts[0] == done.texts[row], "decode: a completion must not depend on the rest of the batch")


def _sampling(part: Any, cache: PromptCache) -> None:
    def drawn(rows: list[int], seeds: list[int]) -> list[str]:
        generators = [np.random.default_rng(seed) for seed in seeds]
        chosen = cache.select(torch.tensor(rows, device=cache.mask_NS.device))
        texts: list[str] = part.decode(chosen, LENGTH, 1.0, generators).texts
        return texts

    rows = [0, 1, 2] * 2
    together = drawn(rows, [1, 2, 3, 4, 5, 6])
    require(together == drawn(rows, [1, 2, 3, 4, 5, 6]), "decode: equal generators must give equal samples")
    require(together != drawn(rows, [7, 8, 9, 10, 11, 12]), "decode: at temperature 1 tokens must be sampled")
    require(drawn([1], [5]) == together[4:5], "decode: a row must be sampled from its own generator")


def _different(part: Any, cache: PromptCache) -> None:
    if not hasattr(part, "decode_distinct"):  # then the search samples one by one
        return

    def drawn(rows: list[int]) -> Completions:
        chosen = cache.select(torch.tensor(rows, device=cache.mask_NS.device))
        counts, generators = [SEVERAL] * len(rows), [np.random.default_rng(row) for row in rows]
        done: Completions = part.decode_distinct(chosen, counts, LENGTH, generators)
        return done

    together = drawn(list(range(cache.rows)))
    require(len(together.texts) == SEVERAL * cache.rows, "decode_distinct: expected as many completions of every row")
    for row in range(cache.rows):
        own = slice(row * SEVERAL, (row + 1) * SEVERAL)
        pairs = zip(together.ids_NL[own].tolist(), together.mask_NL[own].tolist(), strict=True)
        written = {tuple(token for token, real in zip(*pair, strict=True) if real) for pair in pairs}
        require(len(written) == SEVERAL, "decode_distinct: two completions of a row are the same")
        alone = drawn([row]).texts
        require(alone == together.texts[own], "decode_distinct: a row must be sampled from its own generator")


def _likelihoods(part: Any, cache: PromptCache, done: Completions) -> None:
    first_NL, one_NL = done.ids_NL[:, :1], done.mask_NL[:, :1]
    best_N = part.log_prob(cache, first_NL, one_NL)
    other_N = part.log_prob(cache, (first_NL + 1) % len(part.embedding_table()), one_NL)
    require(bool((best_N <= 0).all()), "log_prob: expected log-probabilities")
    require(bool((other_N <= best_N + CLOSE).all()), "log_prob: another first token is likelier than the greedy one")
    ids_NL, mask_NL = part.encode_targets(["11", "7", "because"])
    pending_NPH = cache.pending_NPH.clone().requires_grad_()
    ready = PromptCache(cache.keys, cache.values, cache.mask_NS, cache.states_NSH, pending_NPH, cache.num_latents)
    whole_N = part.log_prob(ready, ids_NL, mask_NL)
    head_NL = torch.cat([mask_NL[:, :1], torch.zeros_like(mask_NL[:, 1:])], 1)
    parts_N = part.log_prob(ready, ids_NL, head_NL) + part.log_prob(ready, ids_NL, mask_NL - head_NL)
    require(_close(whole_N, parts_N), "log_prob: expected the sum over the tokens of the mask")
    whole_N.sum().backward()
    grad = pending_NPH.grad
    require(grad is not None and bool(grad.abs().sum() > 0), "log_prob: no gradient reaches what was put in")


def _close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(torch.allclose(first, second, atol=CLOSE, rtol=CLOSE))
