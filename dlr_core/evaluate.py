"""Questions answered by the frozen model under prompts or latents, and the best of the hand-written prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlr_core.cost import FlopCount, Usage
from dlr_core.errors import PluginError
from dlr_core.protocols import Assistant, Refiner
from dlr_core.questions import distinct_items
from dlr_core.records import Item, Sample

PROMPTS = (
    "The answer is",
    "=",
    "Sure! ",
    "<answer>",
    "Let me calculate:",
    "Step by step:",
    "We have",
    "Answer:",
    "Result:",
)
"""Hand-written beginnings of an answer, among which the best is chosen on training questions."""

Report = Callable[[str], None]
Latents = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What the frozen model answered, and what that took."""

    samples: list[Sample]
    flops: int
    """Of the main model and the assistant, for all answers together."""

    @property
    def correct_N(self) -> NDArray[np.float64]:
        """Correctness of each answer."""
        return np.array([sample.correct for sample in self.samples], np.float64)


class Evaluator:
    """Completes questions under prompts or latents on an environment's engine, greedily unless told otherwise."""

    def __init__(self, engine: Any, batch: int = 64) -> None:
        self.engine, self.batch = engine, batch

    def under_prompt(self, items: Sequence[Item], prompt: str) -> Answers:
        """Completions that begin with a text (none: the plain prompt), without latents.

        The same token limit applies to what follows the text.
        """
        decoder, samples = self.engine.decoder, []
        ids, before = decoder.encode(prompt), decoder.usage.copy()
        for chunk in _chunks(items, self.batch):
            cache = decoder.prefill([item.question for item in chunk], ids[:-1], ids[-1:], 0)
            samples += self.engine.judge(chunk, decoder.decode(cache, self.engine.max_new_tokens))
        return Answers(samples, self._flops_since(before))

    def under_latents(self, items: Sequence[Item], latents_NTD: Latents) -> list[Sample]:
        """Greedy completions with one given chain per question."""
        return self.under_each(items, {"": latents_NTD})[""].samples

    @torch.no_grad()
    def under_each(self, items: Sequence[Item], chains: Mapping[str, Latents]) -> dict[str, Answers]:
        """Greedy completions under several sets of latents (N, T, D), each question prefilled once for all of them.

        Every set is charged the whole prefill, as if it were alone.
        """
        decoder = self.engine.decoder
        samples: dict[str, list[Sample]] = {name: [] for name in chains}
        flops = dict.fromkeys(chains, 0)
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            before = decoder.usage.copy()
            cache = self.engine.prefill([item.question for item in chunk])
            prefill = self._flops_since(before)
            for name, latents_NTD in chains.items():
                before = decoder.usage.copy()
                actions = torch.as_tensor(latents_NTD[start : start + self.batch], device=decoder.device)
                ready = self.engine.inject(cache, actions)
                done = decoder.decode(ready, self.engine.max_new_tokens, **self.engine.asked)
                samples[name] += self.engine.judge(chunk, done)
                flops[name] += prefill + self._flops_since(before)
        return {name: Answers(samples[name], flops[name]) for name in chains}

    def _flops_since(self, before: Usage) -> int:
        decoder = self.engine.decoder
        return int(decoder.usage.since(before).flops(decoder.flops_per_token))

    @torch.no_grad()
    def latents(self, items: Sequence[Item], assistant: Assistant, noise: Latents | None = None) -> Latents:
        """The assistant's mean chain for each question (N, T, D), or a sampled one where noise is given."""
        return self.latents_and_flops(items, assistant, noise)[0]

    @torch.no_grad()
    def latents_and_flops(
        self, items: Sequence[Item], assistant: Assistant, noise: Latents | None = None
    ) -> tuple[Latents, int]:
        """:meth:`latents`, and the assistant's FLOPs."""
        space, found, spent = self.engine.space, [], 0
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            states, mask = self._read(assistant, [item.question for item in chunk])
            drawn = np.zeros((len(chunk), space.num_latents, space.latent_dim), np.float32)
            drawn = drawn if noise is None else noise[start : start + self.batch]
            with FlopCount() as count:
                chains = assistant.sample(states.float(), mask, torch.as_tensor(drawn, device=states.device))
            spent += count.total
            found.append(chains.actions_NTD.float().cpu().numpy())
        return np.concatenate(found), spent

    def refined(self, items: Sequence[Item], latents_NTD: Latents, refiner: Refiner) -> tuple[Latents, int]:
        """Latents improved question by question at test time, and the main model's FLOPs that it took."""
        engine, before, found = self.engine, self.engine.decoder.usage.copy(), []
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            given = torch.as_tensor(latents_NTD[start : start + self.batch], device=engine.decoder.device)
            texts = [item.question for item in chunk]
            with torch.enable_grad():
                made = refiner(engine.decoder, engine.space, texts, given, engine.max_new_tokens)
            if made.shape != given.shape or not bool((made.abs() <= 1).all()):  # NaN is not <= 1 either
                raise PluginError(
                    f"refiner {type(refiner).__name__}: expected latents of shape {tuple(given.shape)} in [-1, 1], "
                    f"got shape {tuple(made.shape)}"
                )
            found.append(made.detach().float().cpu().numpy())
        return np.concatenate(found), self._flops_since(before)

    def _read(self, assistant: Assistant, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What an assistant reads: states (N, S, H) and a mask (N, S), the observation last where it ``observes``."""
        cache, space = self.engine.prefill(questions), self.engine.space
        states, mask = cache.question_states()
        if not getattr(assistant, "observes", False):
            return states, mask
        nothing = torch.zeros(cache.rows, 0, space.latent_dim, device=states.device)
        seen = space.observe(cache, nothing)[:, None]
        return torch.cat([states, seen], 1), torch.cat([mask, mask.new_ones(cache.rows, 1)], 1)


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def best_prompt(evaluator: Evaluator, count: int, report: Report) -> str:
    """The hand-written prompt with the most right answers on ``count`` distinct *training* questions."""
    items = distinct_items(evaluator.engine.task, "train", count)
    scores = {}
    for prompt in PROMPTS:
        report(f"prompt {prompt!r} on training questions")
        scores[prompt] = evaluator.under_prompt(items, prompt).correct_N.sum()
    return max(scores, key=lambda prompt: scores[prompt])
