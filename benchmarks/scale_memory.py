"""GPU memory on paper: what a rank holds, and how many GPUs that takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from scale_device import HALF
from scale_shapes import Learner, Shape
from scale_step import Work

GPU = 80e9
USABLE = 0.9
"""Of a GPU's bytes: the rest is the runtime's, and lost between blocks."""
LEARNING = 16
"""Bytes per trained parameter in float32: weight, gradient, two moments. In mixed precision as many: weight and
gradient in bfloat16, a copy of the weight and two moments in float32 (ZeRO, Rajbhandari et al. 2020, section 3.1)."""
CAPACITY, FRONTIER = 768, 256
"""Questions that replay and search keep by default (``replay.capacity``, ``replay.frontier``)."""


@dataclass(frozen=True)
class Holding:
    """Bytes by what they hold, on one rank, or on all of GRPO's GPUs together."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.parts.values())

    @property
    def gpus(self) -> int:
        """How many it takes, filled evenly."""
        return ceil(self.total / (USABLE * GPU))


def chains(shape: Shape, work: Work, prompt: float, ranks: int) -> float:
    """Bytes of the keys and values of the widest batch that a rank decodes at once, prompts held once each."""
    again = work.search - work.fresh
    questions, tries = max(
        ((work.questions, work.chains), (work.fresh, work.tries), (again, work.tries)),
        key=lambda batch: batch[0] * (prompt + batch[1] * work.completion),
    )
    return questions / ranks * (prompt + tries * work.completion) * shape.cached * HALF


def kept_prompt(shape: Shape, prompt: float) -> float:
    """Bytes of a prompt that replay keeps: its keys and values, and its states."""
    return prompt * (shape.cached + shape.hidden) * HALF


def ours(shape: Shape, learner: Learner, work: Work, ranks: int, positions: int, kept: int) -> Holding:
    """What a rank of this method holds: the whole frozen model, whatever the number of ranks.

    Args:
        shape: the main model.
        learner: what is trained.
        work: the step.
        ranks: that share it.
        positions: scored in one pass.
        kept: prompts that replay and search hold.
    """
    prompt = work.prompt + learner.latents
    return Holding(
        {
            "weights": HALF * shape.parameters,
            "chains": chains(shape, work, prompt, ranks),
            "activations": positions * shape.activations(frozen=True),
            "learning": LEARNING * learner.trained(shape),
            "kept prompts": kept * kept_prompt(shape, prompt),
        }
    )


def adapted(shape: Shape, work: Work, ranks: int, positions: int, adapters: int) -> Holding:
    """What a rank of GRPO on LoRA adapters holds, the whole frozen model with them.

    An adapter reads what its matrix reads, so as many activations are kept as if the matrix were trained; what the
    adapters add themselves is left out.
    """
    return Holding(
        {
            "weights": HALF * shape.parameters,
            "chains": chains(shape, work, work.prompt, ranks),
            "activations": positions * shape.activations(frozen=False),
            "learning": LEARNING * shape.adapters(adapters),
        }
    )


def grpo(shape: Shape, work: Work, gpus: int, positions: int) -> Holding:
    """What all GPUs of GRPO hold together: everything but activations split evenly, each GPU with its own pass."""
    return Holding(
        {
            "weights": HALF * shape.parameters,
            "chains": chains(shape, work, work.prompt, 1),
            "activations": gpus * positions * shape.activations(frozen=False),
            "learning": LEARNING * shape.parameters,
        }
    )


def grpo_gpus(shape: Shape, work: Work, positions: int) -> int:
    """The fewest GPUs on which it fits; more of them bring room and need some, for a pass each.

    Raises:
        ValueError: a pass alone leaves no room.
    """
    each = USABLE * GPU - positions * shape.activations(frozen=False)
    if each <= 0:
        raise ValueError(f"expected a pass of fewer than {positions} positions: its activations fill a GPU")
    return ceil(grpo(shape, work, 0, positions).total / each)
