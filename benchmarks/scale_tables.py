"""The tables of docs/scale.md that are arithmetic alone."""

import scale_memory
from scale_device import ETHERNET, H100, Device
from scale_methods import grpo, ours
from scale_shapes import MIDDLE, SHAPES, Learner, Shape
from scale_step import Step, Work
from sheet import Sheet

RANKS = (1, 2, 4, 8, 64)
LATENTS = (1, 8, 32)
PASS = 1024
"""Positions of a pass with gradients on paper, of both methods: few enough for the activations to fit."""
PROMPTS = 128
"""Prompts kept by replay and search where the default's 1,024 do not fit."""
LEARNER = Learner()
PAPER = Learner(given=1_300_000_000)
"""The assistant of the paper (arXiv 2601.17275)."""
WORK = Work()

LORA = 16
"""Rank of adapters, where GRPO trains those."""

Row = tuple[str, Shape, Learner | int]
"""Its label, the main model, and what learns: beside it, or in it by GRPO, adapters of a rank (0: all weights)."""
ROWS: list[Row] = [
    *((f"latents, {shape.name}", shape, LEARNER) for shape in SHAPES),
    ("latents, 7B, 1.3B assistant", MIDDLE, PAPER),
    *((f"GRPO, {shape.name}", shape, 0) for shape in SHAPES),
    ("GRPO on LoRA, 7B", MIDDLE, LORA),
]


def step(shape: Shape, learner: Learner | int, ranks: int) -> Step:
    """A step of either method."""
    if isinstance(learner, int):
        return grpo(shape, WORK, ranks, positions=PASS, adapters=learner)
    return ours(shape, learner, WORK, ranks, positions=PASS)


def gpus(shape: Shape, learner: Learner | int, ranks: int) -> int | None:
    """GPUs of a rank; None where GRPO on all weights does not fit on so many."""
    if isinstance(learner, int) and learner:
        return scale_memory.adapted(shape, WORK, ranks, PASS, learner).gpus
    if isinstance(learner, int):
        return 1 if ranks >= scale_memory.grpo_gpus(shape, WORK, PASS) else None
    return scale_memory.ours(shape, learner, WORK, ranks, PASS, PROMPTS).gpus


def size(count: float) -> str:
    """Bytes for people: three digits."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{digits(count / scale)} {unit}"
    return f"{digits(count / 1e3)} kB" if count else "0"


def digits(value: float) -> str:
    """Three of them."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def bytes_table() -> Sheet:
    """Sent by a rank, against ranks."""
    rows = [(name, *(size(step(s, learner, n).sent(n)) for n in RANKS)) for name, s, learner in ROWS]
    return Sheet(("a rank sends, on", *(_ranks(n) for n in RANKS)), rows)


def seconds_table() -> Sheet:
    """Of a step, against ranks."""
    rows = []
    for name, shape, learner in ROWS:
        held = max(filter(None, (gpus(shape, learner, n) for n in RANKS)))
        label = name if held == 1 else f"{name}, {held} GPUs a rank"
        rows.append((label, *(_seconds(shape, learner, n, H100) for n in RANKS)))
    for name, shape, learner in ROWS:
        if shape is MIDDLE:
            rows.append((f"{name}, 10 Gbit/s", *(_seconds(shape, learner, n, ETHERNET) for n in RANKS)))
    return Sheet(("seconds a step, on", *(_ranks(n) for n in RANKS)), rows)


def latents_table() -> Sheet:
    """Against T: 7B on 8 ranks."""
    rows = []
    for count in LATENTS:
        learner = Learner(latents=count)
        found = step(MIDDLE, learner, 8)
        rows.append((
            str(count), f"{learner.trained(MIDDLE) / 1e6:.2f} M", size(found.reduced), size(found.gathered),
            size(found.sent(8)), f"{found.seconds(H100, 8):.2f}",
        ))  # fmt: skip
    return Sheet(("T", "trained", "gradients", "gathered", "a rank sends", "seconds"), rows)


def models_table() -> Sheet:
    """Seconds by phase: 8 ranks, and 64."""
    rows = []
    for name, shape, learner in ROWS:
        for ranks in (8, 64):
            if gpus(shape, learner, ranks) is None:
                continue
            found = step(shape, learner, ranks)
            spent = {phase.name: phase.seconds(H100) for phase in found.phases}
            work = spent.get("score", 0.0) + spent.get("train", 0.0)
            rest = spent.get("assistant", 0.0) + spent["update"]
            sent = found.sent(ranks) / H100.link(ranks)
            figures = (spent["prefill"], spent["decode"], work, rest, sent)
            rows.append((name, str(ranks), f"{found.flops / 1e12:.1f}", *(f"{value:.3f}" for value in figures)))
    head = ("", "ranks", "TFLOP of a rank", "prefill", "decode", "forward and back", "assistant, update", "network")
    return Sheet(head, rows)


def memory_table() -> Sheet:
    """What a GPU holds."""
    rows = []
    for shape in SHAPES[1:]:
        every = scale_memory.CAPACITY + scale_memory.FRONTIER
        cases = ((f"all {every:,} prompts kept", 8192, every), (f"{PROMPTS} prompts kept", 8192, PROMPTS),
                 (f"{PROMPTS} prompts kept, passes of {PASS:,}", PASS, PROMPTS))  # fmt: skip
        for name, positions, kept in cases:
            held = scale_memory.ours(shape, LEARNER, WORK, 8, positions, kept)
            rows.append((f"latents, {shape.name}, {name}", *_parts(held), str(held.gpus)))
        held = scale_memory.adapted(shape, WORK, 8, PASS, LORA)
        rows.append((f"GRPO on LoRA, {shape.name}", *_parts(held), str(held.gpus)))
        count = scale_memory.grpo_gpus(shape, WORK, PASS)
        rows.append((f"GRPO, {shape.name}, all GPUs", *_parts(scale_memory.grpo(shape, WORK, count, PASS)), str(count)))
    head = ("GB of a rank", "weights", "chains", "activations", "what learns", "kept prompts", "sum", "80 GB GPUs")
    return Sheet(head, rows)


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''}"


def _seconds(shape: Shape, learner: Learner | int, ranks: int, device: Device) -> str:
    fits = gpus(shape, learner, ranks) is not None
    return f"{step(shape, learner, ranks).seconds(device, ranks):.2f}" if fits else "–"


def _parts(held: scale_memory.Holding) -> list[str]:
    names = ("weights", "chains", "activations", "learning", "kept prompts")
    return [f"{held.parts.get(name, 0.0) / 1e9:.1f}" for name in names] + [f"{held.total / 1e9:.0f}"]
