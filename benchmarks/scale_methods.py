"""A step of this method, and of token-level GRPO: what each does with its completions, and what it sends."""

from math import ceil

from scale_device import HALF
from scale_shapes import Learner, Shape
from scale_step import Phase, Step, Work, rollouts

SINGLE = 4
"""Bytes of a float32 number: what learns is held and sent so (``Ranks.average``)."""
ADAM = 28
"""Bytes of memory per parameter and update: gradient, weight and two moments read; weight, moments and copy written."""


def ours(shape: Shape, learner: Learner, work: Work, ranks: int, number: int = HALF, positions: int = 8192) -> Step:
    """This method's step.

    Scored are completions alone: latents stand behind the prompt, so no gradient goes through it. Forward two FLOPs a
    weight and position; backward again two, for the gradient of what was read, none for weights.
    """
    lesson, prompt = work.completion if work.lesson is None else work.lesson, work.prompt + learner.latents
    scored = work.taught * lesson / ranks
    attention = 3 * shape.attention_flops(prompt + lesson / 2)
    passes = max((1 if work.right else 0) + work.updates, scored / positions)
    teach = Phase(
        "score",
        scored * (4 * (shape.matrices + shape.head) + attention),
        2 * passes * (shape.matrices + shape.head) * number,
    )
    trained = learner.trained(shape)
    update = Phase("update", 0.0, work.updates * ADAM * trained, single=True)
    learn = Phase("assistant", assistant_flops(shape, learner, work) / ranks, 0.0, single=True)
    return Step(
        [*rollouts(shape, work, prompt, 1 + work.loops, ranks, number, work.refilled(ranks)), teach, learn, update],
        reduced=work.updates * SINGLE * trained,
        gathered=gathered(shape, learner, work, work.prompt),
    )


def assistant_flops(shape: Shape, learner: Learner, work: Work) -> float:
    """The assistant's, over all ranks: it reads every question and writes every latent, two FLOPs a weight.

    Three times that with the gradient. The rollout's chains are read twice: once written, once for their density, which
    the contrastive objective ranks.
    """

    def chains(questions: float, rows: float) -> float:
        return 2 * (questions * work.prompt * learner.reading(shape) + rows * learner.latents * learner.writing)

    rollout = chains(work.questions, work.questions * work.chains)
    searched = chains(work.search, work.search * work.tries)
    return 6 * rollout + searched + 3 * work.updates * chains(work.replay, work.replay)


def gathered(shape: Shape, learner: Learner, work: Work, states: float) -> float:
    """Bytes that all ranks see of a rollout (``joined_batch``): question states and their mask; of every chain its
    noise, itself, two log-densities a latent, number, chance, prediction, reward, two verdicts.

    Args:
        shape: the main model.
        learner: what is trained.
        work: the step.
        states: positions of the widest question.
    """
    questions, rows = work.questions, work.questions * work.chains
    chain = 2 * SINGLE * learner.latents * learner.dim + 2 * SINGLE * learner.latents + 8 + 4 * SINGLE + 1
    return questions * states * (SINGLE * shape.hidden + 8) + rows * chain


def grpo(shape: Shape, work: Work, ranks: int, number: int = HALF, positions: int = 8192, adapters: int = 0) -> Step:
    """Token-level GRPO on as many completions from as many prompts, all weights trained, or LoRA adapters.

    They are decoded in one batch, or in the few that keep a rank's chains as few as ours has on one rank.

    Forward and backward through prompt and completion, six FLOPs a weight and position (Kaplan et al. 2020): no
    reference model, one update a batch, nothing recomputed. Gradients in bfloat16, reduced and scattered, new weights
    gathered: as many bytes as an average. Then the weights go to the rollout's engine. With adapters the weights are
    frozen, four FLOPs each, and what is averaged and sent is the adapters.

    Args:
        shape: the main model.
        work: the step.
        ranks: that share it.
        number: bytes of a number.
        positions: of one pass.
        adapters: their rank; 0 trains all weights.
    """
    trained, frozen = shape.adapters(adapters) or shape.parameters, bool(adapters)
    batches = ceil((1 + work.loops) / ranks)
    each = 4 * shape.matrices + 6 * trained if frozen else 6 * shape.matrices
    length = work.prompt + work.completion
    read = work.decoded * length / ranks
    train = Phase(
        "train",
        read * (each + 3 * shape.attention_flops(length / 2))
        + work.decoded * work.completion / ranks * (4 if frozen else 6) * shape.head,
        max(1, read / positions) * (2 if frozen else 4) * shape.parameters * number,
    )
    update = Phase("update", 0.0, ADAM * trained / ranks)
    return Step(
        [*rollouts(shape, work, work.prompt, batches, ranks, number), train, update],
        reduced=HALF * trained,
        synced=HALF * trained,
        overlapping="train",
    )
