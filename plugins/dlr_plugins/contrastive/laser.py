"""Written reasoning distilled into latents: where the model reasons its way to a right answer, it teaches itself.

LaSER (Jin et al. 2026, arXiv 2603.01425) trains a retriever under two views of a query: an explicit one that reads a
written reasoning, and a latent one that thinks a few continuous tokens instead. Beside the contrast of queries and
documents, the latent view is drawn to the explicit one by KL divergences of the documents' scores: those of the outcome
and, along the way, those of latent steps and of as many states spread evenly over the reasoning. There another model
wrote the reasoning, and both views train the one model. Here the model is frozen: it writes its own reasoning, which
counts only if the answer that it then gives is verified as right, and never changes as a teacher. It tells tokens apart
and not documents, so that next-token probabilities take the place of scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlr_core.batch import MainModel, StepBatch
from dlr_core.errors import PluginError
from dlr_core.protocols import Decoder
from dlr_core.records import PromptCache
from dlr_core.stacking import stack
from dlr_plugins.contrastive.bidirectional import Bidirectional


@dataclass(frozen=True)
class Explicit:
    """What the frozen model thinks under M reasonings of its own that led to right answers."""

    attempts: list[int]
    """Their numbers: question b's begin at b · tries."""
    ids_ML: Tensor
    """The answers."""
    mask_ML: Tensor
    said_MLV: Tensor
    """Log-probabilities, in nats, of the tokens at each place of the answer."""
    passed_MPV: Tensor
    """The same at the places of the reasoning that the latent steps are compared with."""


class LaSER(Bidirectional):
    """`bidirectional`, and KL from the model after its own right reasoning to the model under latents."""

    asks_model = True

    class Options(Bidirectional.Options):
        """Settings of ``laser``; the weights of outcome and trajectory stand to each other as in the paper."""

        weight: float = Field(0.02, ge=0, description="Weight of the contrast, which is that of `bidirectional`.")
        output_weight: float = Field(1.0, ge=0, description="Weight of the divergence along the answer.")
        trajectory_weight: float = Field(0.01, ge=0, description="Weight of the divergence along the reasoning.")
        opening: str = Field("Let me calculate:", min_length=1, description="Text that reasoning begins with.")
        tokens: int = Field(24, ge=1, description="Limit on the reasoning; the anchor's text follows it.")
        tries: int = Field(2, ge=1, description="Reasonings sampled per question and step.")
        reasoning_temperature: float = Field(
            0.3, gt=0, description="At which their tokens are sampled; at 1 a small model wanders off."
        )
        places: int = Field(3, ge=0, description="Latent steps that are compared with places of the reasoning.")

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__(options, hidden_size, num_latents, latent_dim)
        self.options: LaSER.Options = options
        self.steps = latent_steps(num_latents, options.places)

    def forward(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """The contrast and both divergences, weighted; where no reasoning led anywhere, the contrast alone.

        Raises:
            PluginError: the batch comes without the frozen model.
        """
        if batch.main is None:
            raise PluginError("laser asks the frozen model: expected a batch with `main`, got one without")
        total, logs = super().forward(batch)
        taught, share = self.explicit(batch.main)
        logs = {**logs, "explicit_correct": share}
        if taught is None:
            return total, logs
        output, trajectory = self.divergences(batch, batch.main, taught)
        total = total + self.options.output_weight * output + self.options.trajectory_weight * trajectory
        return total, {**logs, "distil": float(output.detach()), "trajectory": float(trajectory.detach())}

    @torch.no_grad()
    def explicit(self, main: MainModel) -> tuple[Explicit | None, float]:
        """Let the model reason in writing and answer.

        Returns:
            What it thought where the answer was right (None: nowhere), and the share of right answers.
        """
        decoder, tries = main.decoder, self.options.tries
        ids = decoder.encode(self.options.opening)
        rows = [row for row in range(len(main.questions)) for _ in range(tries)]
        asked = decoder.prefill(main.questions, ids[:-1], ids[-1:], 0)
        asked = asked.select(torch.tensor(rows, device=decoder.device))
        seed = int(torch.randint(2**31, (), generator=main.generator))
        generators = [np.random.default_rng((seed, number)) for number in range(len(rows))]
        written = decoder.decode(asked, self.options.tokens, self.options.reasoning_temperature, generators)
        read, passed = [], []
        for number, text in enumerate(written.texts):
            alone = asked.select(torch.tensor([number], device=decoder.device))
            ready, states_PH = self._reread(main, alone, decoder.encode(text))
            read.append(ready)
            passed.append(states_PH)
        cache = stack(read)
        answers = decoder.decode(cache, main.max_new_tokens)
        right_N = main.verify(rows, answers).bool()
        attempts = right_N.nonzero()[:, 0]
        share = float(right_N.float().mean())
        if not len(attempts):
            return None, share
        mask_ML = answers.mask_NL[attempts]
        ids_ML = answers.ids_NL[attempts]
        said_MLV = answer_logits(decoder, cache.select(attempts), ids_ML).log_softmax(-1)
        passed_MPV = decoder.logits(torch.stack(passed)[attempts]).log_softmax(-1)
        return Explicit(attempts.tolist(), ids_ML, mask_ML, said_MLV, passed_MPV), share

    def _reread(self, main: MainModel, asked: PromptCache, reasoning: Sequence[int]) -> tuple[PromptCache, Tensor]:
        """One prompt with reasoning and anchor text after it, and the states (P, H) that the reasoning passes through.

        Its last token is left to be fed.
        """
        ids = torch.tensor([*reasoning, *main.space.anchor_ids, *main.space.pending_ids], device=main.decoder.device)
        embeds_1PH = torch.cat([asked.pending_NPH, main.decoder.embedding_table()[ids][None]], 1)
        grown = main.decoder.grow(asked, embeds_1PH[:, :-1])
        begin = asked.mask_NS.shape[1]  # the opening's last token
        shares = [step / main.space.num_latents for step in self.steps]
        places = torch.tensor([begin + round(len(reasoning) * share) for share in shares], dtype=torch.long)
        return replace(grown, pending_NPH=embeds_1PH[:, -1:]), grown.states_NSH[0, places]

    def divergences(self, batch: StepBatch, main: MainModel, taught: Explicit) -> tuple[Tensor, Tensor]:
        """KL(explicit ‖ latent) in nats: mean over the answers' tokens, and over the places along the way.

        A question's attempts are held against different chains of its group, as far as there are so many.
        """
        tries, decodes = self.options.tries, batch.chosen_BK.shape[1]
        attempt_M = torch.tensor(taught.attempts, device=batch.chosen_BK.device)
        question_M = attempt_M // tries
        chain_M = question_M * batch.group_size + batch.chosen_BK[question_M, attempt_M % tries % decodes]
        latents_MTD = batch.chains.actions_NTD[chain_M]
        cache = main.cache.select(main.rows_B[question_M])
        said_MLV = answer_logits(main.decoder, main.space.inject(cache, latents_MTD), taught.ids_ML).log_softmax(-1)
        output = divergence(taught.said_MLV, said_MLV, taught.mask_ML)
        if not self.steps:
            return output, torch.zeros_like(output)
        states_MPH = torch.stack([main.space.observe(cache, latents_MTD[:, :step]) for step in self.steps], 1)
        passed_MPV = main.decoder.logits(states_MPH).log_softmax(-1)
        everywhere_MP = torch.ones(passed_MPV.shape[:2], device=passed_MPV.device)
        return output, divergence(taught.passed_MPV, passed_MPV, everywhere_MP)


def latent_steps(num_latents: int, places: int) -> list[int]:
    """After how many of T latents states are compared: ``places`` steps spread evenly, the ends left out."""
    spread = {round(num_latents * place / (places + 1)) for place in range(1, places + 1)}
    return sorted(spread - {0, num_latents})


def answer_logits(decoder: Decoder, ready: PromptCache, ids_ML: Tensor) -> Tensor:
    """Logits (M, L, V) at every place of given answers; differentiable in what was injected."""
    answer_MLH = decoder.embedding_table()[ids_ML[:, :-1]]
    fed_MPH = torch.cat([ready.pending_NPH, answer_MLH], 1)
    return decoder.logits(decoder.grow(ready, fed_MPH).states_NSH[:, -ids_ML.shape[1] :])


def divergence(teacher_MLV: Tensor, student_MLV: Tensor, mask_ML: Tensor) -> Tensor:
    """KL(teacher ‖ student) in nats, mean over the masked places; of log-probabilities."""
    kl_ML = (teacher_MLV.exp() * (teacher_MLV - student_MLV)).sum(-1)
    return (kl_ML * mask_ML).sum() / mask_ML.sum()
