"""Evaluation: one policy and its controls on the same held-out questions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlr_core.host import PluginHost
from dlr_core.protocols import Assistant
from dlr_core.questions import distinct_items
from dlr_core.records import Item, Sample
from dlr_core.splits import Split
from dlr_core.stats import bootstrap_mean, pass_at_k

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
class Row:
    """One line of the table."""

    samples: list[Sample]
    note: dict[str, Any]

    @property
    def correct_N(self) -> NDArray[np.float64]:
        """Correctness of each question."""
        return np.array([sample.correct for sample in self.samples], np.float64)

    def summary(self) -> dict[str, Any]:
        """Accuracy with its interval, format rate and mean completion tokens, JSON-ready."""
        count = max(len(self.samples), 1)
        return {
            "accuracy": float(self.correct_N.mean()) if self.samples else 0.0,
            "ci": list(bootstrap_mean(self.correct_N)),
            "format": sum(s.format for s in self.samples) / count,
            "tokens": sum(s.tokens for s in self.samples) / count,
            **self.note,
        }


class Evaluator:
    """Completes questions under prompts or latents on an environment's engine, greedily unless told otherwise."""

    def __init__(self, engine: Any, batch: int = 64) -> None:
        self.engine, self.batch = engine, batch

    def under_prompt(self, items: Sequence[Item], prompt: str) -> list[Sample]:
        """Completions that begin with a text (none: the plain prompt), without latents.

        The same token limit applies to what follows the text.
        """
        decoder, samples = self.engine.decoder, []
        ids = decoder.encode(prompt)
        for chunk in _chunks(items, self.batch):
            cache = decoder.prefill([item.question for item in chunk], ids[:-1], ids[-1:], 0)
            done = decoder.decode(cache, self.engine.max_new_tokens)
            samples += self.engine.judge(chunk, done)
        return samples

    def under_latents(self, items: Sequence[Item], latents_NTD: Latents) -> list[Sample]:
        """Greedy completions with one given chain per question."""
        return self.under_each(items, {"": latents_NTD})[""]

    @torch.no_grad()
    def under_each(self, items: Sequence[Item], chains: Mapping[str, Latents]) -> dict[str, list[Sample]]:
        """Greedy completions under several sets of latents (N, T, D), each question prefilled once for all of them."""
        decoder, space = self.engine.decoder, self.engine.space
        samples: dict[str, list[Sample]] = {name: [] for name in chains}
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            cache = self.engine.prefill([item.question for item in chunk])
            for name, latents_NTD in chains.items():
                actions = torch.as_tensor(latents_NTD[start : start + self.batch], device=decoder.device)
                done = decoder.decode(space.inject(cache, actions), self.engine.max_new_tokens)
                samples[name] += self.engine.judge(chunk, done)
        return samples

    @torch.no_grad()
    def latents(self, items: Sequence[Item], assistant: Assistant, noise: Latents | None = None) -> Latents:
        """The assistant's mean chain for each question (N, T, D), or a sampled one where noise is given."""
        space, found = self.engine.space, []
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            states, mask = self.engine.prefill([item.question for item in chunk]).question_states()
            drawn = np.zeros((len(chunk), space.num_latents, space.latent_dim), np.float32)
            drawn = drawn if noise is None else noise[start : start + self.batch]
            chains = assistant.sample(states.float(), mask, torch.as_tensor(drawn, device=states.device))
            found.append(chains.actions_NTD.float().cpu().numpy())
        return np.concatenate(found)


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def best_prompt(evaluator: Evaluator, count: int, report: Report) -> str:
    """The hand-written prompt with the most right answers on ``count`` distinct *training* questions."""
    items = distinct_items(evaluator.engine.task, "train", count)
    scores = {}
    for prompt in PROMPTS:
        report(f"prompt {prompt!r} on training questions")
        scores[prompt] = sum(sample.correct for sample in evaluator.under_prompt(items, prompt))
    return max(scores, key=lambda prompt: scores[prompt])


def control_table(
    engine: Any,
    assistant: Assistant,
    host: PluginHost,
    *,
    questions: int,
    split: Split = "test",
    seed: int = 0,
    prompt_questions: int = 128,
    k: int = 1,
    report: Report = lambda text: None,
) -> dict[str, Any]:
    """Accuracy of the trained assistant and of every control on the same distinct questions.

    Args:
        engine: the environment's engine.
        assistant: the trained assistant; its mean chain is decoded greedily.
        host: where the controls are registered.
        questions: how many distinct questions; fewer if the task has fewer.
        split: ``test`` for figures, ``validation`` for choices.
        seed: which questions (never training ones).
        prompt_questions: training questions on which the best prompt is chosen.
        k: with more than 1, also pass@k and maj@k of k sampled chains, decoded greedily.
        report: called with what is being done.

    Returns:
        ``{"n", "rows": {name: {accuracy, ci, format, tokens}}, "paired": {name: {difference, ci}}}``; differences are
        trained minus the row, their
        95 % intervals paired over questions.
    """
    evaluator = Evaluator(engine)
    items = distinct_items(engine.task, split, questions, seed)
    prompt = best_prompt(evaluator, prompt_questions, report)
    rng = np.random.default_rng(seed)
    report("chains of the trained assistant")
    trained = evaluator.latents(items, assistant)
    chains = {"trained": trained}
    for control in host.names("control"):
        chains["anchor" if control == "zero" else control] = host.create("control", control)(trained, rng)
    report(f"trained latents and {len(chains) - 1} controls")
    rows = {name: Row(samples, {}) for name, samples in evaluator.under_each(items, chains).items()}
    report("plain prompt")
    rows["plain"] = Row(evaluator.under_prompt(items, ""), {})
    report("best hand-written prompt")
    rows["best_prompt"] = Row(evaluator.under_prompt(items, prompt), {"prompt": prompt})
    note = sampled_rows(evaluator, items, assistant, k, rng, report) if k > 1 else {}
    order = ["plain", "anchor", "best_prompt", "random", "mean", "shuffled"]
    names = [*order, *sorted(set(rows) - {*order, "trained"}), "trained"]
    right = rows["trained"].correct_N
    paired = {}
    for name in names[:-1]:
        gap = right - rows[name].correct_N
        paired[name] = {"difference": float(gap.mean()) if len(gap) else 0.0, "ci": list(bootstrap_mean(gap))}
    summaries = {name: rows[name].summary() for name in names}
    summaries["trained"].update(note)
    return {"split": split, "n": len(items), "rows": summaries, "paired": paired}


def sampled_rows(
    evaluator: Evaluator,
    items: Sequence[Item],
    assistant: Assistant,
    k: int,
    rng: np.random.Generator,
    report: Report,
) -> dict[str, Any]:
    """pass@k and maj@k of k chains sampled from the policy, each decoded greedily."""
    space = evaluator.engine.space
    draws: list[list[Sample]] = []
    for number in range(k):
        report(f"sampled chains {number + 1}/{k}")
        noise = rng.standard_normal((len(items), space.num_latents, space.latent_dim)).astype(np.float32)
        draws.append(evaluator.under_latents(items, evaluator.latents(items, assistant, noise)))
    passed, majority = [], []
    for samples in zip(*draws, strict=True):
        passed.append(pass_at_k(sum(s.correct >= 0.99 for s in samples), k, k))
        top = Counter(s.parsed for s in samples).most_common(1)[0][0]
        majority.append(next(s.correct for s in samples if s.parsed == top))
    return {"k": k, "pass_at_k": float(np.mean(passed)), "maj_at_k": float(np.mean(majority))}
