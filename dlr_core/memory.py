"""How much memory a run will need, from sizes alone: arithmetic that asks neither for a model nor for PyTorch.

Bytes are counted of what is largest: what is held from the first step to the last, and beside it what each phase of a
step holds at its fullest (docs/memory.md derives the counts, and says how far they are from what was measured).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from dlr_core.parts import longest

SINGLE = 4
"""Bytes of float32, in which everything learns."""
COPIES = 4
"""Of what is trained: itself, its gradient, Adam's two moments."""
CALIBRATION, AT_ONCE = 128, 32
"""Questions that an assistant's reader is calibrated on, and how many of them are prefilled together."""
FEW = 4
"""Prompts up to which each has what all begin with to itself: one more product costs more than it saves."""
SLICE = 128
"""Positions whose logits exist at the same time while completions are scored; half as many, but twice, on a CPU."""


@dataclass(frozen=True)
class ModelSize:
    """A frozen main model, and how it reads."""

    weights: int
    """Bytes."""
    packed: int
    """Bytes of copies of weights in another order."""
    layers: int
    cache_width: int
    """Keys and values of one position, numbers over all layers."""
    hidden: int
    """H."""
    heads: int
    head_width: int
    inner: int
    """Numbers that one layer's feed-forward part keeps of a position for the way back."""
    vocabulary: int
    number: int
    """Bytes of a number: 4, or 2 in half precision."""
    pass_positions: int
    """Positions scored in one pass, at most."""
    copies_prompts: bool = False
    """Whether every chain has its prompt to itself while it is decoded."""


@dataclass(frozen=True)
class RunSize:
    """What a run does in a step."""

    questions: int
    """B."""
    samples: int
    """G."""
    decodes: int
    """K."""
    completions: int
    """M, of every chain."""
    prompt: int
    """S, tokens of a prompt with its anchor."""
    latents: int
    """T."""
    latent_dim: int
    """D."""
    pending: int
    """Tokens fed after the latents."""
    tokens: int
    """L, of a completion."""
    trained: int
    """Parameters of assistant, chart, contrastive objective and scorer."""
    width: int = 0
    """The assistant's, where it is a transformer; and its blocks."""
    blocks: int = 0
    replayed: int = 0
    at_once: int = 0
    """Successes that are learned from, and questions that are searched on, at a time; 0: all."""
    searched: int = 0
    tries: int = 0
    stored: int = 0
    """Remembered successes and unsolved questions, at capacity."""
    beginning: int = 0
    """First positions that all prompts have in common: they are held once."""
    store_limit: int = 0
    """Bytes that prompts of stored questions take at most."""
    on_disk: bool = False
    """Whether they are in a file."""
    sampled: bool = False
    """Whether tokens of the rollout are sampled."""
    needs_gradient: bool = True
    """Whether the estimator differentiates through the frozen model."""
    residual: bool = True
    """Whether latents are residuals on a shared prompt's cache; else they are fed to a copy of it for every chain."""


START, STORES = "start", "replay and frontier"
PARTS = ("prompts", "chains", "activations", "logits", "assistant")
"""Of a phase."""


@dataclass(frozen=True)
class Plan:
    """Bytes."""

    held: dict[str, int]
    """From the first step to the last."""
    phases: dict[str, dict[str, int]]
    """By phase and part, beside what is held."""

    def during(self, phase: str) -> int:
        """All that there is in a phase; when a run starts, nothing is remembered yet."""
        held = sum(size for what, size in self.held.items() if phase != START or what != STORES)
        return held + sum(self.phases[phase].values())

    @property
    def fullest(self) -> str:
        """The phase with most."""
        return max(self.phases, key=self.during)

    @property
    def total(self) -> int:
        """All that there is then."""
        return self.during(self.fullest)


def prompt_bytes(model: ModelSize, positions: int) -> int:
    """Keys, values and final states of so many cached positions."""
    return positions * (model.cache_width + model.hidden) * model.number


def prompts_bytes(model: ModelSize, run: RunSize, prompts: int) -> int:
    """What so many prompts take with their latents, those of one batch: what all begin with is held once."""
    each, once = prompt_bytes(model, run.prompt + run.latents), shared(model, run) * model.cache_width * model.number
    return prompts * (each - once) + once


def shared(model: ModelSize, run: RunSize, prompts: int = FEW + 1) -> int:
    """First positions whose keys and values all prompts of a batch share; few prompts are read without that."""
    return run.beginning if run.residual and not model.copies_prompts and prompts > FEW else 0


def one_pass(model: ModelSize, run: RunSize, rows: int, groups: int) -> tuple[int, int]:
    """How many of so many completions, on so many prompts, are scored in one pass, and on how many prompts."""
    new = max(1, run.pending + run.tokens - 1)
    passes = -(-rows * new // model.pass_positions) or 1
    rows = -(-rows // passes)
    return rows, min(groups, rows) if run.residual else rows


def pass_bytes(model: ModelSize, run: RunSize, rows: int, groups: int) -> int:
    """What one scoring pass with gradients keeps of the frozen model until it has gone back.

    Args:
        model: the frozen model.
        run: lengths.
        rows: completions to be scored, in several passes if they are many.
        groups: prompts that they go on from.
    """
    new = max(1, run.pending + run.tokens - 1)
    rows, groups = one_pass(model, run, rows, groups)
    far, own = (run.prompt, run.latents + new) if run.residual else (0, run.prompt + run.latents + new)
    fed = rows * new
    half = model.number < SINGLE
    kept = fed * (model.inner + model.heads * model.head_width) * model.number + fed * 2 * model.hidden * SINGLE
    cached = (rows * own + groups * max(0, far - shared(model, run, groups))) * model.cache_width * model.number
    weights = fed * model.heads * ((far + own) * (SINGLE + half * model.number) + own * model.number)
    return model.layers * (kept + weights) + cached


def assistant_bytes(model: ModelSize, run: RunSize, questions: int, chains: int, *, back: bool = True) -> int:
    """What a transformer keeps that reads a question's states and writes latents one by one.

    Args:
        model: whose states it reads.
        run: lengths.
        questions: that are read.
        chains: that are written.
        back: whether all is kept until it has gone back; else only the keys and values of the last two latents.
    """
    tokens, latents = questions * run.prompt, chains * run.latents
    block = 4 * chains * (run.prompt + run.latents)
    if back:
        block = 17 * tokens + 2 * chains * run.prompt * (1 + run.latents) + latents * (run.latents + 17)
    return SINGLE * (run.blocks * run.width * block + 2 * tokens * model.hidden * bool(run.blocks))


def store_bytes(model: ModelSize, run: RunSize) -> int:
    """What the prompts of all stored questions take, wherever they are kept."""
    whole, common = prompt_bytes(model, run.prompt + run.latents), prompt_bytes(model, run.beginning)
    return min(run.store_limit, run.stored * (whole - common) + common * bool(run.stored))


def plan(model: ModelSize, run: RunSize) -> Plan:
    """Bytes of every part of a run."""
    stored = prompt_bytes(model, run.prompt + run.latents)
    held = {
        "main model": model.weights,
        "packed copies": model.packed,
        "learned, gradients, Adam": COPIES * SINGLE * run.trained,
        STORES: 0 if run.on_disk else store_bytes(model, run),
    }
    chains, at_hand = run.questions * run.decodes, 2 * run.questions * stored
    phases = {
        START: _start(model, run, stored),
        "rollout": _decode(model, run, at_hand, chains * run.completions, run.sampled)
        | {"assistant": assistant_bytes(model, run, run.questions, run.questions * run.samples)},
    }
    if run.needs_gradient:
        phases["update"] = _learn(model, run, at_hand, chains * run.completions, chains // run.questions)
        phases["update"]["assistant"] = phases["rollout"]["assistant"]
    if run.replayed and run.searched:
        rows = longest(run.searched, run.at_once)
        phases["search"] = _search(model, run, rows)
        phases["search"]["assistant"] = assistant_bytes(model, run, rows, rows, back=False)
    if run.replayed:
        rows = longest(run.replayed, run.at_once)
        phases["replay"] = _learn(model, run, prompts_bytes(model, run, rows), rows, 1)
        phases["replay"]["assistant"] = _once_more(model, run, rows, phases["replay"])
    return Plan(held, phases)


def _start(model: ModelSize, run: RunSize, stored: int) -> dict[str, int]:
    """Calibrating on training questions' prompts: a part's, and the states of all, twice more, in float32."""
    positions = run.prompt + run.latents
    return {
        "prompts": AT_ONCE * stored,
        "activations": AT_ONCE * positions * (model.inner + 4 * model.hidden) * model.number,
        "assistant": 2 * CALIBRATION * positions * model.hidden * SINGLE,
    }


def _decode(model: ModelSize, run: RunSize, prompts: int, rows: int, sampled: bool) -> dict[str, int]:
    """Completing rows on prompts of so many bytes: latents as they are made and kept, then room for what is written."""
    latents = rows * run.latents * model.cache_width * model.number
    written = rows * (run.pending + run.tokens) * model.cache_width * model.number
    whole = rows * run.prompt * model.cache_width * model.number
    copied = whole * (model.copies_prompts or not run.residual)
    half = model.number < SINGLE
    return {
        "prompts": prompts,
        "chains": max(4 * latents, 2 * latents + written) + copied,
        "activations": rows * max(1, run.pending) * (model.inner + 4 * model.hidden) * model.number,
        "logits": rows * model.vocabulary * (SINGLE * (4 if sampled else 1) + half * model.number),
    }


def _search(model: ModelSize, run: RunSize, rows: int) -> dict[str, int]:
    """Completing questions in several ways: a chain for each, of which every completion has a copy and goes on."""
    prompts, completions = prompts_bytes(model, run, rows), rows * run.tries
    if run.tries < 2:
        return _decode(model, run, prompts, rows, sampled=True)
    begun = rows * (2 * run.latents if run.residual else run.prompt + run.latents)
    own = run.latents * (run.residual or model.copies_prompts) + run.pending + run.tokens
    own += run.prompt * model.copies_prompts
    chains = (begun + completions * own) * model.cache_width * model.number
    return _decode(model, run, prompts, completions, sampled=False) | {"chains": chains}


def _learn(model: ModelSize, run: RunSize, prompts: int, rows: int, group: int) -> dict[str, int]:
    """Scoring completions on prompts of so many bytes: a pass, and of all latents the values and their gradients.

    What a pass reads is chosen and put in order before it: its rows twice, its prompts once.
    """
    latents = rows * run.latents * model.cache_width * model.number
    once, groups = one_pass(model, run, rows, -(-rows // group))
    chosen = groups * (run.prompt - shared(model, run, groups))
    brought = (2 * once * run.latents + chosen) * model.cache_width * model.number
    whole = 0 if run.residual else rows * run.prompt * model.cache_width * model.number
    fed = 0 if run.residual else rows * run.latents * model.layers
    query = model.heads * model.head_width
    written = fed * ((model.inner + query) * model.number + 2 * model.hidden * SINGLE)
    half = model.number < SINGLE
    return {
        "prompts": prompts,
        "chains": COPIES * latents + brought + whole,
        "activations": pass_bytes(model, run, rows, -(-rows // group)) + written,
        "logits": SLICE * model.vocabulary * (SINGLE + half * model.number),
    }


def _once_more(model: ModelSize, run: RunSize, rows: int, beside: dict[str, int]) -> int:
    """What an assistant takes that is computed again when all scoring passes are over: little during them."""
    during = assistant_bytes(model, run, rows, rows, back=False)
    return max(during, assistant_bytes(model, run, rows, rows) - beside["activations"] - beside["logits"])


LIMITS: dict[str, Callable[[RunSize, int], RunSize]] = {
    "K": lambda run, size: replace(run, decodes=size, samples=max(size, run.samples)),
    "B": lambda run, size: replace(run, questions=size),
    "T": lambda run, size: replace(run, latents=size),
}
"""How a run would be with another number of chains, questions or latents."""


def largest(model: ModelSize, run: RunSize, which: str, available: int, most: int) -> int:
    """The largest K, B or T, everything else as it is, with which a run fits; 0 if not even 1 does.

    Args:
        model: the frozen model.
        run: the run.
        which: a key of :data:`LIMITS`.
        available: bytes.
        most: beyond which it is not looked.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if plan(model, LIMITS[which](run, middle)).total <= available:
            low = middle
        else:
            high = middle - 1
    return low


def of_rank(run: RunSize, ranks: int) -> RunSize:
    """One of several ranks' share of a run; what is remembered all of them may come to hold."""
    share = replace(run, questions=run.questions // ranks, replayed=-(-run.replayed // ranks))
    return replace(share, searched=-(-run.searched // ranks))
