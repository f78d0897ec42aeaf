"""Episodes on the frozen model: what the single and the vector environment both step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlr_core.aside import Aside, Pending
from dlr_core.errors import ActionError, PluginError
from dlr_core.protocols import Decoder, Reward, Space, Task
from dlr_core.records import Completions, Item, PromptCache, Sample, Written
from dlr_core.timelimit import Overdue, each_within
from dlr_envs.arguments import read_actions

Floats = NDArray[np.float32]
T = TypeVar("T")
JUDGE_SECONDS = 120.0
"""What one call of a verifier or a reward may take: far more than any should, but not for ever."""


@dataclass(frozen=True)
class Outcome:
    """N finished episodes, each decoded M times."""

    items: list[Item]
    samples: list[Sample]
    """N·M of them: row n·M + m is completion m of episode n."""
    rewards_NM: Floats
    completions: Completions
    """In the order of the samples."""
    cache: PromptCache
    """Prompts of the distinct questions, without latents."""
    rows_N: Tensor
    """Which prompt each episode had."""

    @property
    def rewards_N(self) -> Floats:
        """An episode's reward: the mean over its completions."""
        mean: Floats = self.rewards_NM.mean(1)
        return mean

    @property
    def several(self) -> int:
        """M."""
        return int(self.rewards_NM.shape[1])


class Engine:
    """Runs N episodes in step: begin with questions, act T / latents_per_step times, get the outcome."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        space: Space,
        task: Task,
        reward: Reward,
        latents_per_step: int,
        temperature: float,
        max_new_tokens: int,
        decodes_per_chain: int = 1,
        judge_seconds: float | None = JUDGE_SECONDS,
    ) -> None:
        self.decoder, self.space, self.task, self.reward = decoder, space, task, reward
        self.latents_per_step, self.decodes_per_chain = latents_per_step, decodes_per_chain
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.judge_seconds = judge_seconds
        self.items: list[Item] = []
        self._beside = Aside()

    @property
    def action_width(self) -> int:
        """Length of one flat action."""
        return self.latents_per_step * self.space.latent_dim

    def on(self, task: Task, max_new_tokens: int, *, decoder: Decoder | None = None) -> "Engine":
        """The same model, space and reward on another task (or another decoder, for what needs no latents)."""
        return Engine(
            decoder=decoder or self.decoder,
            space=self.space,
            task=task,
            reward=self.reward,
            latents_per_step=self.latents_per_step,
            temperature=self.temperature,
            max_new_tokens=max_new_tokens,
            decodes_per_chain=self.decodes_per_chain,
            judge_seconds=self.judge_seconds,
        )

    def begin(self, items: Sequence[Item]) -> Floats:
        """Start one episode per item, prefilling each distinct question once; returns observations (N, H)."""
        self.items = list(items)
        texts = list(dict.fromkeys(item.question for item in items))
        number = {text: row for row, text in enumerate(texts)}
        self.rows_N = torch.tensor([number[item.question] for item in items], device=self.decoder.device)
        self.cache = self.prefill(texts)
        self.actions_NtD = torch.zeros(len(items), 0, self.space.latent_dim, device=self.decoder.device)
        return self._observe()

    def prefill(self, questions: Sequence[str]) -> PromptCache:
        """Prompts of questions with the space's anchor."""
        space = self.space
        return self.decoder.prefill(questions, space.anchor_ids, space.pending_ids, space.num_latents)

    def inject(self, cache: PromptCache, latents_NTD: Tensor, rows_N: Tensor | None = None) -> PromptCache:
        """Prompts of N chains with their latents in; what chains of one question share is held once, where it can be.

        Args:
            cache: prompts without latents.
            latents_NTD: one chain for each.
            rows_N: which prompt each chain has; one after another if None.
        """
        able = all(getattr(part, "shares_prompts", False) for part in (self.space, self.decoder))
        if able:
            cache = cache.share(torch.arange(cache.rows, device=cache.mask_NS.device) if rows_N is None else rows_N)
        elif rows_N is not None:
            cache = cache.select(rows_N)
        return self.space.inject(cache if able else cache.whole(), latents_NTD)

    @torch.no_grad()
    def _observe(self) -> Floats:
        if self.actions_NtD.shape[1] == 0:  # nothing tells the chains of one question apart yet
            states = self.space.observe(self.cache, self.actions_NtD[: self.cache.rows])[self.rows_N]
        else:
            states = self.space.observe(self.cache.select(self.rows_N), self.actions_NtD)
        return states.float().cpu().numpy().copy()

    def act(self, actions: Any, generators: Sequence[np.random.Generator]) -> tuple[Floats, Pending[Outcome] | None]:
        """Take one flat action (N, latents_per_step·D) per episode.

        Returns:
            The next observations, and once the last latent is in the outcome (nothing is left to observe then: zeros).
            Everything is decoded by then; verdicts and rewards are still being given, while the caller may begin the
            next episodes.

        Raises:
            ActionError: wrong shape, not finite, or the episodes have ended.
        """
        if not self.items:
            raise ActionError("expected reset: no episode has begun")
        if self.actions_NtD.shape[1] == self.space.num_latents:
            raise ActionError(
                f"expected reset: the episodes ended with latent {self.space.num_latents}, got another step"
            )
        taken = read_actions(actions, (len(self.items), self.action_width))
        latents = torch.as_tensor(taken, device=self.decoder.device)
        latents = latents.view(len(self.items), self.latents_per_step, self.space.latent_dim)
        self.actions_NtD = torch.cat([self.actions_NtD, latents], 1)
        if self.actions_NtD.shape[1] < self.space.num_latents:
            return self._observe(), None
        return np.zeros((len(self.items), self.decoder.hidden_size), np.float32), self._finish(generators)

    @torch.no_grad()
    def _finish(self, generators: Sequence[np.random.Generator]) -> Pending[Outcome]:
        ready = self.inject(self.cache, self.actions_NtD, self.rows_N)
        completions = self.decode(ready, generators)
        return self._beside.start(self._outcome, self.items, completions, self.cache, self.rows_N)

    def _outcome(self, items: list[Item], completions: Completions, cache: PromptCache, rows_N: Tensor) -> Outcome:
        several = [item for item in items for _ in range(self.decodes_per_chain)]
        samples = self.judge(several, completions)
        asked = [(sample,) for sample in samples]
        rewards = self._each(f"reward {type(self.reward).__name__}", samples, self._reward_of, asked)
        rewards_NM = np.array(rewards, np.float32).reshape(len(items), -1)
        return Outcome(items, samples, rewards_NM, completions, cache, rows_N)

    def abandon(self) -> None:
        """End the episodes as they are: a reset must follow."""
        self.items = []

    @torch.no_grad()
    def decode(self, ready: PromptCache, generators: Sequence[np.random.Generator]) -> Completions:
        """Every row completed as an episode is: ``decodes_per_chain`` times, at the environment's temperature.

        One completion is drawn from its episode's generator itself; several have one each, seeded by it.
        """
        count = self.decodes_per_chain
        if count > 1:
            seeds = [generator.integers(2**63, size=count) for generator in generators]
            generators = [np.random.default_rng(int(seed)) for row in seeds for seed in row]
            rows_N = torch.arange(ready.rows, device=ready.mask_NS.device)
            ready = ready.select(rows_N.repeat_interleave(count))
        return self.decoder.decode(ready, self.max_new_tokens, self.temperature, generators, **self.asked)

    @property
    def asked(self) -> dict[str, bool]:
        """What the reward has to know of completions, as arguments of the decoder's ``decode``."""
        able = getattr(self.reward, "needs_entropy", False) and getattr(self.decoder, "reports_entropy", False)
        return {"entropy": True} if able else {}

    def judge(self, items: Sequence[Item], completions: Completions) -> list[Sample]:
        """The task's verdict on every completion."""
        tokens, ended = completions.mask_NL.sum(1).int().tolist(), completions.ended_N.tolist()
        entropies = [None] * len(tokens) if completions.entropy_N is None else completions.entropy_N.tolist()
        texts = completions.texts
        asked = list(zip(items, texts, ended, strict=True))
        verdicts = self._each(f"task {type(self.task).__name__}", texts, self.task.score, asked)
        rows = zip(items, texts, verdicts, tokens, ended, entropies, strict=True)
        return [
            Sample(item.question, item.answer, text, said.parsed, said.correct, said.format, count, stop, nats)
            for item, text, said, count, stop, nats in rows
        ]

    def _reward_of(self, sample: Sample) -> float:
        who = f"reward {type(self.reward).__name__}"
        try:
            given = self.reward(sample)
            value = _one_number(given)
        except PluginError:
            raise
        except Exception as error:
            raise PluginError(f"{who} raised {type(error).__name__}: {error} on {sample}") from error
        if value is None:
            raise PluginError(f"{who}: expected one number, got {type(given).__name__} {_short(given)} on {sample}")
        if not np.isfinite(value):
            raise PluginError(f"{who} returned {value} on {sample}")
        return value

    def _each(
        self, who: str, judged: Sequence[object], part: Callable[..., T], rows: Sequence[Sequence[Any]]
    ) -> list[T]:
        """A part's verdict on everything judged, if each comes in time."""
        try:
            return each_within(self.judge_seconds, _without_gradients, [(part, *row) for row in rows])
        except Overdue as late:
            on = f"on {judged[late.number]!r}"
            raise PluginError(f"{who} has not answered within {self.judge_seconds:g} s {on}") from None

    def describe(self, outcome: Outcome, number: int) -> Mapping[str, Any]:
        """What ``info`` says of a finished episode: plain Python, no times.

        Of several completions: the first one's text, all texts, mean verdicts, all their tokens.
        """
        samples = outcome.samples[number * outcome.several : (number + 1) * outcome.several]
        first, item = samples[0], outcome.items[number]
        texts = {"completions": tuple(sample.completion for sample in samples)} if len(samples) > 1 else {}
        return {
            "question": item.question,
            "answer": item.answer,
            "index": item.index,
            "completion": first.completion,
            "parsed": first.parsed or "",
            "correct": sum(sample.correct for sample in samples) / len(samples),
            "format": sum(sample.format for sample in samples) / len(samples),
            "tokens": sum(sample.tokens for sample in samples),
            **texts,
        }

    @torch.no_grad()
    def complete(
        self,
        items: Sequence[Item],
        cache: PromptCache,
        rows_N: Tensor,
        latents_NTD: Tensor,
        *,
        seed: int,
        first: int = 0,
        counts: Sequence[int] | None = None,
        openings: Sequence[str] | None = None,
    ) -> tuple[Completions, Pending[list[Sample]]]:
        """Completions sampled token by token at temperature 1; the episodes are left as they are.

        Several of one item, which lie side by side, are different ones where the decoder can see to it.

        The task's verdicts are still being given when they are returned.

        Args:
            items: N questions.
            cache: prompts of distinct questions, without latents.
            rows_N: which prompt each item has.
            latents_NTD: one chain per item.
            seed: of the generators that tokens are drawn from.
            first: number of the first item among those that are drawn with this seed, here and elsewhere.
            counts: completions of each item; one if None.
            openings: text that each item's completions begin with, as part of them; nothing if None.
        """
        counts = [1] * len(items) if counts is None else counts
        openings = [""] * len(items) if openings is None else openings
        ready = self.inject(cache, latents_NTD, rows_N)
        able = max(counts) > 1 and hasattr(self.decoder, "decode_distinct")
        done = (self._different if able else self._independent)(ready, counts, openings, seed, first)
        several = [item for item, count in zip(items, counts, strict=True) for _ in range(count)]
        return done, self._beside.start(self.judge, several, done)

    def _different(
        self, ready: PromptCache, counts: Sequence[int], openings: Sequence[str], seed: int, first: int
    ) -> Completions:
        """Completions of each row that all differ."""
        decoder: Any = self.decoder
        begun = [decoder.encode(text) for text in openings]
        limit = max(self.max_new_tokens, 1 + max(map(len, begun)))
        generators = [np.random.default_rng((seed, first + row)) for row in range(len(counts))]
        done: Completions = decoder.decode_distinct(ready, counts, limit, generators, begun)
        return done

    def _independent(
        self, ready: PromptCache, counts: Sequence[int], openings: Sequence[str], seed: int, first: int
    ) -> Completions:
        """Completions of each row, drawn one by one; rows with one opening together."""
        written: dict[tuple[int, int], Written] = {}
        for opening in dict.fromkeys(openings):
            places = [(n, k) for n, text in enumerate(openings) if text == opening for k in range(counts[n])]
            ids = self.decoder.encode(opening)
            part = ready.select(torch.tensor([n for n, _ in places], device=self.decoder.device))
            given_NPH = self.decoder.embedding_table()[ids].expand(len(places), -1, -1)
            part = replace(part, pending_NPH=torch.cat([part.pending_NPH, given_NPH], 1))
            generators = [np.random.default_rng((seed, first + n, k)) for n, k in places]
            done = self.decoder.decode(part, max(1, self.max_new_tokens - len(ids)), 1.0, generators)
            rows = zip(places, done.written(), strict=True)
            written |= {place: ([*ids, *own], opening + text, ended) for place, (own, text, ended) in rows}
        return Completions.of([written[place] for place in sorted(written)], self.decoder.device)


def _one_number(given: Any) -> float | None:
    """What a reward returned as a float; None if it is not exactly one number."""
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 0:
        return float(given)
    return float(given) if isinstance(given, int | float | np.number | np.bool_) else None


def _short(given: Any) -> str:
    """The beginning of what something prints as, in one line."""
    return " ".join(repr(given).split())[:80]


def _without_gradients(part: Callable[..., T], *arguments: Any) -> T:
    """A call on whichever thread: whether gradients are recorded is each thread's own matter."""
    with torch.no_grad():
        return part(*arguments)
