"""What a run does with its successes: find more of them, remember them, raise their likelihood under new latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlr_core.advantages import RARITY_FLOOR
from dlr_core.aside import Pending
from dlr_core.config import ReplaySettings
from dlr_core.everyone import joined_completions, joined_prompts, nothing_completed
from dlr_core.frontier import Frontier, Prompt, fill, prompts, restore_prompts
from dlr_core.records import Completions, Item, Sample
from dlr_core.replay import ReplayBuffer, Success, stack
from dlr_core.rollout import Collector, correctness, repeats

Metrics = dict[str, Any]
Judging = Pending[list[Sample]]
SURPRISE = (0.05, 3.0)
"""Bounds, in nats, of the loss that a replayed success is weighed by: prioritised replay (Schaul et al. 2016)."""


@dataclass(frozen=True)
class Attempt:
    """Completions of some prompts, as many of each."""

    prompts_B: Sequence[Prompt]
    completions: Completions
    judging: Judging | None
    """Their verdicts, on their way; None where this rank has written none of them."""


class Rehearsal:
    """Replay of the run's own correct completions, and the search that finds more of them."""

    def __init__(self, settings: ReplaySettings, collector: Collector, openings: Sequence[str] = ("",)) -> None:
        self.settings, self.collector, self.env = settings, collector, collector.env
        self.ranks = collector.ranks
        self.openings = tuple(openings)
        self.buffer = ReplayBuffer(settings.capacity)
        self.frontier = Frontier(settings.frontier)

    def take(self, own_B: Sequence[Prompt], completions: Completions, correct_BK: Tensor) -> None:
        """:meth:`remember` what all ranks have decoded.

        Args:
            own_B: prompts of this rank's questions.
            completions: this rank's.
            correct_BK: 1.0 where right, of every rank's.
        """
        if self.settings.chains:
            everyone_B = joined_prompts(self.ranks, own_B, self._item)
            self.remember(everyone_B, joined_completions(self.ranks, completions), correct_BK)

    def remember(self, prompts_B: Sequence[Prompt], completions: Completions, correct_BK: Tensor) -> None:
        """Keep each distinct correct completion, the rarer in its group the heavier; note what has none.

        Args:
            prompts_B: one per question.
            completions: B·K of them, K in a row for each question, of one chain or of several.
            correct_BK: 1.0 where right.
        """
        if not self.settings.chains:
            return
        group, rate_B = correct_BK.shape[1], correct_BK.mean(1).tolist()
        repeat_BK = repeats(completions.texts, group).to(correct_BK.device)
        for n in (correct_BK.bool() & ~repeat_BK).flatten().nonzero()[:, 0].tolist():
            ids = completions.ids_NL[n][completions.mask_NL[n].bool()].tolist()
            weight = (1.0 + RARITY_FLOOR - rate_B[n // group]) ** self.settings.priority
            self.buffer.add(Success(prompts_B[n // group], tuple(ids), weight))
        for prompt, rate in zip(prompts_B, rate_B, strict=True):
            if rate:
                self.frontier.solve(prompt.item.question)
            else:
                self.frontier.add(prompt)

    def search(self) -> Metrics:
        """Sample tokens on further training questions; what comes out right is remembered, and no more.

        Greedy decoding of latents gives few different answers; sampled tokens find successes that it misses. Some
        questions are new, and begin with the first opening; the rest are tried again, those that nothing has solved
        yet, and there the openings take turns.
        """
        if not self.settings.search or not self.settings.chains:
            return {}
        generator = self.collector.generator
        again = self.frontier.draw(self.settings.search - self.settings.fresh, generator)
        known = {prompt.item.question for prompt in again}
        new = self._draw_new(self.settings.search - len(again))
        new = [prompt for prompt in new if prompt.item.question not in known]
        tries, openings = self.settings.tries, self.openings
        plan = [(new, openings[0], tries)]
        plan += [(again, text, len(range(place, tries, len(openings)))) for place, text in enumerate(openings)]
        with self.collector.frozen.watch(self.collector.verifying):  # while one is judged, the next is written
            attempts = [self._attempt(prompts_B, text, count) for prompts_B, text, count in plan if prompts_B and count]
            samples = [sample for attempt in attempts for sample in self._learned(attempt)]
        solved = {sample.question for sample in samples if sample.correct}
        for question in solved:
            self.frontier.solve(question)
        return {
            "search_correct": float(correctness(samples).mean()),
            "search_best": len(solved) / len([*new, *again]),
            "search_decodes": len(samples),
            "search_tokens": sum(sample.tokens for sample in samples),
            "frontier": len(self.frontier.waiting),
        }

    def _attempt(self, prompts_B: Sequence[Prompt], opening: str, count: int) -> Attempt:
        """``count`` completions of each prompt, sampled token by token; of several ranks, this one's share."""
        own = self.ranks.share(len(prompts_B))
        seed = int(torch.randint(2**31, (), generator=self.collector.generator))
        noise_NTD = self._noise(len(prompts_B) * count)
        if own.start == own.stop:
            return Attempt(prompts_B, nothing_completed(self.collector.device), None)
        rows = slice(own.start * count, own.stop * count)
        return Attempt(prompts_B, *self._sampled(prompts_B[own], opening, noise_NTD[rows], seed, rows.start))

    def _learned(self, attempt: Attempt) -> list[Sample]:
        """All ranks' samples of an attempt; what is right among them is remembered."""
        own = [] if attempt.judging is None else attempt.judging.result()
        completions, judged = joined_completions(self.ranks, attempt.completions), self.ranks.join(own)
        self.remember(attempt.prompts_B, completions, correctness(judged).view(len(attempt.prompts_B), -1))
        return judged

    def _sampled(
        self, prompts_B: Sequence[Prompt], opening: str, noise_NTD: Tensor, seed: int, first: int
    ) -> tuple[Completions, Judging]:
        """Completions of as many chains of each prompt as there is noise for; the first is number ``first`` of all."""
        count = len(noise_NTD) // len(prompts_B)
        fill(prompts_B, self.env.engine.prefill)
        cache = stack([prompt.cache for prompt in prompts_B])
        states_BSH, mask_BS = cache.question_states()
        rows_N = torch.arange(len(prompts_B), device=mask_BS.device).repeat_interleave(count)
        with torch.no_grad():
            chains = self.collector.sample(states_BSH.float(), mask_BS, noise_NTD)
        items = [prompt.item for prompt in prompts_B for _ in range(count)]
        done: tuple[Completions, Judging] = self.env.engine.complete(
            items, cache, rows_N, chains.actions_NTD, seed=seed, opening=opening, first=first
        )
        return done

    def _draw_new(self, count: int) -> list[Prompt]:
        """Distinct training questions, prefilled; fewer if the task has fewer."""
        task, generator = self.env.engine.task, self.collector.generator
        drawn = torch.randint(task.size("train"), (count,), generator=generator).tolist()
        items = list({item.question: item for item in (task.item("train", index) for index in drawn)}.values())
        if not items:
            return []
        if self.ranks.size > 1:  # each prefills its own
            cohort = tuple(item.question for item in items)
            return [Prompt(item, cohort, row) for row, item in enumerate(items)]
        cache = self.env.engine.prefill([item.question for item in items])
        return prompts(items, cache, torch.arange(len(items), device=cache.mask_NS.device))

    def state(self) -> dict[str, Any]:
        """JSON-ready, for the checkpoint."""
        waiting = [prompt.state() for prompt in self.frontier.waiting.values()]
        return {"successes": self.buffer.state(), "frontier": waiting}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From :meth:`state`."""
        prefill = self.env.engine.prefill if self.ranks.size == 1 else None
        self.buffer.restore(state["successes"], prefill, self._item)
        waiting = restore_prompts(state["frontier"], prefill, self._item)
        self.frontier.waiting = {prompt.item.question: prompt for prompt in waiting}

    def _item(self, index: int) -> Item:
        found: Item = self.env.engine.task.item("train", index)
        return found

    def replay(self, least: int) -> tuple[Tensor | None, Metrics]:
        """Mean negative log-likelihood of remembered successes under chains sampled now, once ``least`` are held."""
        count = self.settings.chains
        if not count or len(self.buffer.entries) < least:
            return None, {}
        own, prefill = self.ranks.share(count), self.env.engine.prefill
        cache, ids_NL, mask_NL = self.buffer.sample(count, self.collector.generator, own, prefill)
        states_NSH, mask_NS = cache.question_states()
        states_NSH = states_NSH.float()
        if self.settings.blur:
            noise_NSH = torch.randn(states_NSH.shape, generator=self.collector.generator).to(states_NSH.device)
            states_NSH = states_NSH + self.settings.blur * spread(states_NSH, mask_NS) * noise_NSH
        chains = self.collector.sample(states_NSH, mask_NS, self._noise(count)[own])
        with self.collector.frozen.watch(f"space {type(self.env.engine.space).__name__}"):
            ready = self.env.engine.inject(cache, chains.actions_NTD)
        nll_N = -self.env.engine.decoder.log_prob(ready, ids_NL, mask_NL)
        surprise_N = nll_N.detach().clamp(*SURPRISE) ** self.settings.priority
        self.buffer.reweigh(self.ranks.join(surprise_N.tolist()))
        nll = nll_N.mean() * (len(nll_N) * self.ranks.size / count)  # shares may differ by one
        return self.settings.weight * nll, {
            "replay_nll": float(nll.detach()),
            "replay_size": len(self.buffer.entries),
        }

    def _noise(self, rows: int) -> Tensor:
        return self.settings.noise * self.collector.noise(rows)


def spread(states_NSH: Tensor, mask_NS: Tensor) -> Tensor:
    """Standard deviation (S, H) over the rows that have a state there; zero where all agree, as in a template."""
    real_NS1 = mask_NS[..., None].bool()
    count_S1 = real_NS1.sum(0).clamp(min=1)
    mean_SH = torch.where(real_NS1, states_NSH, 0.0).sum(0) / count_S1
    return (torch.where(real_NS1, states_NSH - mean_SH, 0.0).square().sum(0) / count_S1).sqrt()
