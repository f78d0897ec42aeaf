"""One check per kind of part. Each raises :class:`~dlr_core.errors.PluginError` naming the law that is broken."""

import copy
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from dlr_core.errors import PluginError
from dlr_core.protocols import EnvSpec, Outcome, RunInfo, RunSummary
from dlr_core.records import Sample, Verdict
from dlr_core.splits import SPLITS, split_of
from dlr_core.testing import toy

Build = Callable[..., Any]
"""Builds the part from the context that its kind is given."""
MIXED = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
NOTHING_RIGHT = [[0.0, 0.0]] * 3


def require(holds: bool, law: str) -> None:
    """Raise unless a law holds.

    Raises:
        PluginError: it does not.
    """
    if not holds:
        raise PluginError(law)


def assistant(build: Build) -> None:
    """Shapes, determinism, gradients, and a density that belongs to what was sampled."""
    torch.manual_seed(0)
    part = build(**toy.SHAPE)
    states_BSH, mask_BS = toy.states()
    if hasattr(part, "calibrate"):
        part.calibrate(states_BSH, mask_BS)
    noise_NTD = toy.noise(6)
    chains = part.sample(states_BSH, mask_BS, noise_NTD)
    require(chains.pre_NTD.shape == noise_NTD.shape, f"sample: expected latents {tuple(noise_NTD.shape)}")
    require(bool(torch.isfinite(chains.pre_NTD).all()), "sample: latents must be finite")
    again = part.sample(states_BSH, mask_BS, noise_NTD)
    require(torch.equal(chains.pre_NTD, again.pre_NTD), "sample: the same noise must give the same latents")
    alone = part.sample(states_BSH[:1], mask_BS[:1], noise_NTD[:2]).pre_NTD
    require(_close(chains.pre_NTD[:2], alone), "sample: a question's latents must not depend on the rest of the batch")
    moved = states_BSH.masked_fill(mask_BS[..., None] == 0, 9.0)
    padded = part.sample(moved, mask_BS, noise_NTD).pre_NTD
    require(_close(chains.pre_NTD, padded), "sample: latents must not depend on masked positions")
    ours = chains.policy.log_prob(chains.pre_NTD)
    theirs = part.evaluate(states_BSH, mask_BS, chains.pre_NTD.detach()).log_prob(chains.pre_NTD.detach())
    require(_close(ours, theirs, 1e-3), "evaluate: log-probs of sampled latents must be those of the sampling policy")
    if chains.pre_NTD.requires_grad:
        chains.pre_NTD.square().sum().backward()
    require(_has_gradient(part), "sample: gradients must flow from the latents into the parameters")
    _state_returns(part, build(**toy.SHAPE))


def reward(build: Build) -> None:
    """A finite number, the same for the same sample."""
    part = build()
    for correct, form, text, parsed in ((1.0, 1.0, " 3", "3"), (0.0, 1.0, " 4", "4"), (0.0, 0.0, "", None)):
        sample = Sample("1 + 2 =", "3", text, parsed, correct, form, len(text), True, 0.5)
        value = float(part(sample))
        require(math.isfinite(value), f"expected a finite number for {sample}, got {value}")
        require(float(part(sample)) == value, f"two calls on one sample differ: {sample}")


def contrastive(build: Build, decoder: Any = None) -> None:
    """A finite scalar whose gradient reaches the latents, also where nothing is right; the frozen model stays."""
    torch.manual_seed(0)
    part = build(**toy.SHAPE)
    require(isinstance(part, nn.Module), "a contrastive objective must be an nn.Module: its weights are trained")
    before = None if decoder is None else decoder.fingerprint()
    part = part if decoder is None else part.to(decoder.device)
    for correct in (MIXED, NOTHING_RIGHT):
        batch, leaf = toy.batch(correct, decoder)
        loss, logs = part(batch)
        _scalar(loss, logs)
        if loss.requires_grad:
            loss.backward()
            require(leaf.grad is None or bool(torch.isfinite(leaf.grad).all()), "gradients must be finite")
    _state_returns(part, build(**toy.SHAPE))
    require(decoder is None or decoder.fingerprint() == before, "the frozen model was changed")


def scorer(build: Build) -> None:
    """Predictions (B, G) without gradient, learning that can be saved."""
    torch.manual_seed(0)
    part = build(**toy.SHAPE)
    states_BSH, mask_BS = toy.states()
    latents_BGTD = toy.noise(3 * toy.GROUP).tanh().unflatten(0, (3, toy.GROUP))
    if getattr(part, "needs_gold", False):
        predicted = part.predict_from_gold(-torch.rand(3, toy.GROUP))
    else:
        predicted = part.predict(states_BSH, mask_BS, latents_BGTD)
    require(
        predicted.shape == (3, toy.GROUP), f"predict: expected shape (3, {toy.GROUP}), got {tuple(predicted.shape)}"
    )
    require(not predicted.requires_grad, "predict: the prediction must be detached")
    require(bool(torch.isfinite(predicted).all()), "predict: expected finite numbers")
    logs = part.update(states_BSH, mask_BS, latents_BGTD[:, :2], torch.tensor(MIXED))
    require(all(isinstance(value, float) for value in logs.values()), "update: logs must be floats")
    _state_returns(part, build(**toy.SHAPE))


def estimator(build: Build, decoder: Any = None) -> None:
    """A finite scalar loss whose gradient reaches the latents or the policy; the frozen model stays as it was."""
    part = build()
    for flag in ("needs_completions", "needs_gold", "needs_sampling"):
        require(isinstance(getattr(part, flag, None), bool), f"expected a bool attribute {flag}")
    before = None if decoder is None else decoder.fingerprint()
    batch, leaf = toy.batch(MIXED, decoder)
    loss, logs = part(batch)
    _scalar(loss, logs)
    require(loss.requires_grad, "the loss must be differentiable")
    loss.backward()
    require(leaf.grad is not None and bool(leaf.grad.abs().sum() > 0), "no gradient reaches the chains")
    if getattr(part, "needs_gradient", True) is False:
        batch, _ = toy.batch(MIXED, decoder)
        part(replace(batch, weighted_completion_log_prob=_unasked, weighted_gold_log_prob=_unasked))
    batch, leaf = toy.batch(NOTHING_RIGHT, decoder)
    loss, logs = part(batch)
    _scalar(loss, logs)
    require(decoder is None or decoder.fingerprint() == before, "the frozen model was changed")


def control(build: Build) -> None:
    """Latents of the same shape, in the box, the same for the same generator; the trained ones stay as they are."""
    part = build()
    trained = np.tanh(np.random.default_rng(0).standard_normal((5, 3, 4))).astype(np.float32)
    before = trained.copy()
    made = part(trained, np.random.default_rng(1))
    require(made.shape == trained.shape, f"expected shape {trained.shape}, got {made.shape}")
    require(bool(np.isfinite(made).all() and np.abs(made).max() <= 1.0), "latents must lie in [-1, 1]")
    require(bool((trained == before).all()), "the trained latents were changed in place")
    require(np.array_equal(made, part(trained, np.random.default_rng(1))), "equal generators must give equal latents")


def baseline(build: Build, decoder: Any) -> None:
    """Likelihoods that can be learned from, answers without latents, files; the frozen model stays as it was."""
    before = decoder.fingerprint()
    part = build(decoder=decoder)
    require(isinstance(part.label, str) and bool(part.label), "label: expected a text")
    require(isinstance(part.virtual_tokens, int) and part.virtual_tokens >= 0, "virtual_tokens: expected a count")
    given = (["How much is 5 + 6?", "And 7?"], " So:", [" 11", " 7"])
    log_prob = part.log_prob(*given)
    require(tuple(log_prob.shape) == (2,), f"log_prob: expected shape (2,), got {tuple(log_prob.shape)}")
    require(bool(torch.isfinite(log_prob).all() and (log_prob <= 0).all()), "log_prob: expected finite numbers below 0")
    log_prob.sum().backward()
    require(len(part.trainable()) > 0, "trainable: there is nothing to learn")
    learned = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.trainable()]
    require(all(learned), "log_prob: a parameter is reached by no gradient")
    with torch.no_grad():
        for parameter in part.trainable():
            parameter.add_(0.01)
    own = part.adapted()
    cache = own.prefill(given[0], decoder.encode(" So"), decoder.encode(":"), 0)
    require(len(own.decode(cache, 2).texts) == 2, "adapted: expected one completion per question")
    wanted = part.log_prob(*given).detach()
    with tempfile.TemporaryDirectory() as folder:
        part.save(Path(folder) / "saved")
        files = [path.suffix for path in Path(folder).rglob("*") if path.is_file()]
        require(not {".bin", ".pt", ".pth", ".pkl", ".pickle"} & set(files), "save: files must not be pickles")
        fresh = build(decoder=decoder)
        fresh.load(Path(folder) / "saved")
    require(_close(fresh.log_prob(*given).detach(), wanted, 1e-5), "load does not restore what save wrote")
    require(decoder.fingerprint() == before, "the frozen model was changed")


def task(build: Build) -> None:
    """Questions that stay the same, split by content; a verifier that knows its own gold answers."""
    part = build()
    for split in SPLITS:
        size = part.size(split)
        require(size > 0, f"the {split} split is empty")
        for index in {0, size // 2, size - 1}:
            item = part.item(split, index)
            require(item == part.item(split, index), f"{split} question {index} is not the same twice")
            require(item == part.item(split, index + size), f"{split} question {index + size} must wrap around")
            require(split_of(item.question) == split, f"{split} question {index} belongs to another split by content")
            _verdict(part.score(item, "", True))
            gold = _verdict(part.score(item, part.gold_text(item), True))
            require(gold.correct == 1.0, f"the gold text {part.gold_text(item)!r} is not judged right")


def env(build: Build) -> None:
    """A well-formed specification."""
    spec = build()
    require(isinstance(spec, EnvSpec), f"expected an EnvSpec, got {type(spec).__name__}")
    require(spec.max_new_tokens > 0 and spec.eval_questions > 0, "token limit and questions must be positive")
    require(len(spec.openings) > 0, "openings: at least the empty text")


def space(build: Build, decoder: Any) -> None:
    """a = 0 changes nothing, gradients flow into the actions, the frozen model stays as it was."""
    before = decoder.fingerprint()
    part = build(decoder=decoder)
    part.calibrate(["How much is 1 + 2?", "How much is 30 + 4?"])
    require(part.num_latents > 0 and part.latent_dim > 0, "num_latents and latent_dim must be positive")
    cache = decoder.prefill(["How much is 5 + 6?", "And 7?"], part.anchor_ids, part.pending_ids, part.num_latents)
    plain = decoder.prefill(["How much is 5 + 6?", "And 7?"], part.anchor_ids, part.pending_ids, 0)
    zeros = torch.zeros(2, part.num_latents, part.latent_dim, device=decoder.device)
    ids_NL, mask_NL = decoder.encode_targets(["11", "7"])
    with torch.no_grad():
        same = decoder.log_prob(part.inject(cache, zeros), ids_NL, mask_NL)
        anchored = decoder.log_prob(plain, ids_NL, mask_NL) if part.pending_ids else same
    require(_close(same, anchored, 1e-3), "inject: all-zero actions must leave the anchor text as it is")
    actions = torch.full_like(zeros, 0.3).requires_grad_()
    decoder.log_prob(part.inject(cache, actions), ids_NL, mask_NL).sum().backward()
    grad = actions.grad
    require(grad is not None and bool(grad.abs().sum() > 0), "inject: no gradient reaches the actions")
    state = part.observe(cache, zeros[:, :0])
    require(tuple(state.shape) == (2, decoder.hidden_size), "observe: expected one final-norm state per row")
    tokens = part.nearest_tokens(actions.detach()[0], 2)
    require(
        len(tokens) == part.num_latents and all(len(row) == 2 for row in tokens), "nearest_tokens: T rows of `count`"
    )
    require(all(p.requires_grad for p in part.trainable()), "trainable: only parameters that are trained")
    require(decoder.fingerprint() == before, "the frozen model was changed")


def logger(build: Build) -> None:
    """Takes every run there can be: new, resumed, without a step, with figures missing, however it ends."""
    outcomes: tuple[Outcome, ...] = get_args(Outcome)
    for number, outcome in enumerate(outcomes):
        with tempfile.TemporaryDirectory() as folder:
            rows = toy.metrics(4)
            done = rows[: 2 * (number % 2)]
            part = build()
            part.begin(RunInfo(Path(folder), {"seed": 0}, "0" * 64, {"assistant": 1, "chart": 0}, done))
            for row in rows[len(done) :] if number else []:
                given = copy.deepcopy(row)
                answer = part.step(given)
                require(given == row, "step: the metrics were changed in place")
                reason = answer is None or (isinstance(answer, str) and bool(answer))
                require(reason, f"step: expected None, or a reason to stop, got {answer!r}")
            steps = len(rows) if number else 0
            part.end(RunSummary(outcome, steps, 1.0, None if outcome == "finished" else "a reason"))


def refiner(build: Build, decoder: Any) -> None:
    """Latents of the same shape, in the box, each question's its own; the given ones and the frozen model stay."""
    before, part, space = decoder.fingerprint(), build(), toy.Nudge(decoder)
    questions = ["How much is 5 + 6?", "And 7?"]
    given = 0.8 * toy.noise(2)[:, : space.num_latents, : space.latent_dim].tanh().to(decoder.device)
    kept = given.clone()
    made = part(decoder, space, questions, given, 4)
    require(made.shape == given.shape, f"expected shape {tuple(given.shape)}, got {tuple(made.shape)}")
    require(bool((made.abs() <= 1).all()), "latents must lie in [-1, 1]")
    require(torch.equal(given, kept), "the given latents were changed in place")
    require(torch.equal(made, part(decoder, space, questions, given, 4)), "two calls with the same latents differ")
    alone = part(decoder, space, questions[:1], given[:1], 4)
    require(_close(made[:1], alone, 1e-2), "a question's latents must not depend on the rest of the batch")
    require(decoder.fingerprint() == before, "the frozen model was changed")


def _scalar(loss: Tensor, logs: Any) -> None:
    require(loss.dim() == 0 and bool(torch.isfinite(loss)), "expected a finite scalar loss")
    require(all(isinstance(value, float) for value in logs.values()), "logs must be floats")


def _verdict(verdict: Any) -> Verdict:
    require(isinstance(verdict, Verdict), f"score: expected a Verdict, got {type(verdict).__name__}")
    inside = 0.0 <= verdict.correct <= 1.0 and 0.0 <= verdict.format <= 1.0
    require(inside, f"score: expected shares between 0 and 1, got {verdict}")
    return verdict  # type: ignore[no-any-return]


def _unasked(latents_NTD: Tensor, weights_BK: Tensor) -> Tensor:
    raise PluginError("needs_gradient is False, but the main model's log-prob was asked for")


def _close(first: Tensor, second: Tensor, tolerance: float = 1e-4) -> bool:
    return first.shape == second.shape and bool(torch.allclose(first, second, atol=tolerance, rtol=tolerance))


def _has_gradient(part: Any) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())


def _state_returns(part: Any, fresh: Any) -> None:
    """What was saved can be loaded into a new one."""
    saved = {key: value.clone() if isinstance(value, Tensor) else value for key, value in part.state_dict().items()}
    fresh.load_state_dict(saved)
    restored = fresh.state_dict()
    same = all(torch.equal(value.cpu(), restored[key]) for key, value in saved.items() if isinstance(value, Tensor))
    require(same, "load_state_dict does not restore what state_dict gave")
