"""A training step on paper: its FLOPs, the bytes that memory gives it, and the bytes that go over the network.

Everything is one rank's part of a step that ``ranks`` ranks share. Seconds are a roofline's: a phase takes the longer
of its arithmetic and its reading, phases follow one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scale_device import Device
from scale_shapes import Shape


@dataclass(frozen=True)
class Work:
    """What a step does, over all ranks: sixteen times the default batch; on GSM8K's lengths."""

    questions: int = 64
    """B."""
    chains: int = 8
    """G, all of them decoded: K."""
    prompt: float = 128
    """S, positions of a prompt, anchor and template included; those of the latents come on top."""
    own: float | None = None
    """Positions of it that are prefilled for each question; None: all (what all share is prefilled once a batch)."""
    completion: float = 128
    """L."""
    longest: float | None = None
    """Passes until a batch's last chain has ended; None: L."""
    search: int = 256
    """Questions searched."""
    fresh: int = 128
    """New ones among them."""
    tries: int = 8
    loops: int = 1
    """Batches that are decoded for the search one after another."""
    replay: int = 512
    updates: int = 2
    right: float = 0.4
    """Share of the decoded chains whose likelihood is raised: the default estimator learns from what was right."""
    lesson: float | None = None
    """Positions of a completion that is scored; None: L."""

    @property
    def decoded(self) -> int:
        """Completions."""
        return self.questions * self.chains + self.search * self.tries

    @property
    def new(self) -> int:
        """Questions that nobody has prefilled before."""
        return self.questions + self.fresh

    def refilled(self, ranks: int) -> float:
        """Prompts that a rank has to prefill since another one did, over all ranks, at most (``frontier.fill``).

        What is drawn again, to be searched or replayed, falls to a rank that has not seen it in N−1 of N cases; and in
        the long run every new prompt is prefilled once on every rank.
        """
        again = self.search - self.fresh + self.updates * self.replay
        return min(again * (ranks - 1) / ranks, self.new * (ranks - 1))

    @property
    def taught(self) -> float:
        """Completions that are scored, forward and back."""
        return self.right * self.questions * self.chains + self.updates * self.replay


@dataclass(frozen=True)
class Phase:
    """A part of a rank's step."""

    name: str
    flops: float
    bytes: float
    """Read from or written to memory."""
    single: bool = False
    """Whether in float32."""

    def seconds(self, device: Device) -> float:
        """The longer of computing and reading."""
        return max(self.flops / (device.single if self.single else device.flops), self.bytes / device.memory)


@dataclass(frozen=True)
class Step:
    """One rank's part."""

    phases: Sequence[Phase]
    reduced: float = 0.0
    """Bytes of gradients that are averaged."""
    gathered: float = 0.0
    """Bytes of the tensors that all ranks see."""
    synced: float = 0.0
    """Bytes of weights that are sent to where completions are made."""
    overlapping: str | None = None
    """The phase behind which the gradients' way can hide, if any."""

    @property
    def flops(self) -> float:
        """All phases'."""
        return sum(phase.flops for phase in self.phases)

    def sent(self, ranks: int) -> float:
        """Bytes that a rank sends: 2(N−1)/N of what a ring averages, (N−1)/N of what it gathers (Patarasu and Yuan
        2009, whose bound a ring reaches), and the weights."""
        return (ranks - 1) / ranks * (2 * self.reduced + self.gathered) + self.synced

    def seconds(self, device: Device, ranks: int) -> float:
        """The step's; what overlaps takes the longer of the two."""
        link = device.link(ranks)
        reducing = 2 * (ranks - 1) / ranks * self.reduced / link
        total = (self.sent(ranks) / link) - reducing
        for phase in self.phases:
            spent = phase.seconds(device)
            if phase.name == self.overlapping:
                spent, reducing = max(spent, reducing), 0.0
            total += spent
        return total + reducing


def rollouts(
    shape: Shape, work: Work, prompt: float, batches: int, ranks: int, number: int, again: float = 0
) -> list[Phase]:
    """Prompts read and completions written: the same ones for both methods.

    A decoding pass reads all weights once and, for every chain, the keys and values of its own tokens, half of them on
    average; a question's chains read its prompt's once together.

    Args:
        shape: the main model.
        work: the step.
        prompt: positions of a prompt, those of latents included.
        batches: in which completions are decoded, one after another.
        ranks: that share it.
        number: bytes of a number.
        again: prompts that are prefilled on a further rank.
    """
    questions = (work.new + again) / ranks
    own = prompt if work.own is None else work.own
    # A position that is prefilled sees half of what is new and all of what was shared.
    seen = prompt - own / 2
    prefill = Phase(
        "prefill",
        questions * own * (2 * shape.matrices + shape.attention_flops(seen)),
        2 * shape.matrices * number + questions * prompt * shape.cached * number,
    )
    rows, passes = work.decoded / ranks, work.completion if work.longest is None else work.longest
    per_token = 2 * (shape.matrices + shape.head) + shape.attention_flops(prompt + work.completion / 2)
    prompts = (work.questions + work.search) / ranks * prompt * passes
    weights = batches * passes * (shape.matrices + shape.head)
    read = weights + (rows * work.completion**2 / 2 + prompts) * shape.cached
    return [prefill, Phase("decode", rows * work.completion * per_token, read * number)]
