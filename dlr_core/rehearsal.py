"""What a run does with its successes: find more of them, remember them, raise their likelihood under new latents."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlr_core.advantages import RARITY_FLOOR
from dlr_core.config import ReplaySettings
from dlr_core.records import Completions, Item, PromptCache
from dlr_core.replay import ReplayBuffer, Success
from dlr_core.rollout import Collector, correctness, repeats

Metrics = dict[str, Any]
SURPRISE = (0.05, 3.0)
"""Bounds, in nats, of a replayed success's weight, which is its own loss: prioritised replay (Schaul et al. 2016)."""


class Rehearsal:
    """Replay of the run's own correct completions, and the search that finds more of them."""

    def __init__(self, settings: ReplaySettings, collector: Collector, openings: Sequence[str] = ("",)) -> None:
        self.settings, self.collector, self.env = settings, collector, collector.env
        self.openings = tuple(openings)
        self.buffer = ReplayBuffer(settings.capacity)

    def remember(
        self, items: Sequence[Item], cache: PromptCache, rows_N: Tensor, completions: Completions, correct_BK: Tensor
    ) -> None:
        """Keep each distinct correct completion, the rarer in its group the heavier.

        Args:
            items: N = B·K questions, each K times in a row.
            cache: prompts of the distinct questions, in the items' order, without latents.
            rows_N: which prompt each item has.
            completions: N of them.
            correct_BK: 1.0 where right.
        """
        if not self.settings.chains:
            return
        group, rate_B = correct_BK.shape[1], correct_BK.mean(1).tolist()
        cohort = tuple(dict.fromkeys(item.question for item in items))
        repeat_BK = repeats(completions.texts, group).to(correct_BK.device)
        for n in (correct_BK.bool() & ~repeat_BK).flatten().nonzero()[:, 0].tolist():
            row = rows_N[n : n + 1]
            ids = completions.ids_NL[n][completions.mask_NL[n].bool()].tolist()
            weight = 1.0 + RARITY_FLOOR - rate_B[n // group]
            self.buffer.add(Success(cohort, int(row), tuple(ids), weight, cache.select(row)))

    def search(self) -> Metrics:
        """Sample tokens on further training questions; what comes out right is remembered, and no more.

        Greedy decoding of latents gives few different answers; sampled tokens find successes that it misses. The
        openings begin completions in turn.
        """
        if not self.settings.search or not self.settings.chains:
            return {}
        engine = self.env.engine
        questions = self._draw_questions()
        cache = engine.prefill([item.question for item in questions])
        states_BSH, mask_BS = cache.question_states()
        correct, samples = [], []
        for number, opening in enumerate(self.openings):
            share = len(range(number, self.settings.tries, len(self.openings)))
            if not share:
                continue
            items = [item for item in questions for _ in range(share)]
            rows_N = torch.arange(len(questions), device=mask_BS.device).repeat_interleave(share)
            seed = int(torch.randint(2**31, (), generator=self.collector.generator))
            with torch.no_grad():
                chains = self.collector.sample(states_BSH.float(), mask_BS, self._noise(len(items)))
            completions, judged = engine.complete(items, cache, rows_N, chains.actions_NTD, seed=seed, opening=opening)
            correct.append(correctness(judged).view(-1, share))
            samples += judged
            self.remember(items, cache, rows_N, completions, correct[-1])
        correct_BK = torch.cat(correct, 1)
        return {
            "search_correct": float(correct_BK.mean()),
            "search_best": float(correct_BK.amax(1).mean()),
            "search_decodes": len(samples),
            "search_tokens": sum(sample.tokens for sample in samples),
        }

    def _draw_questions(self) -> list[Item]:
        """Distinct training questions, fewer if the task has fewer."""
        task = self.env.engine.task
        size = (self.settings.search,)
        drawn = torch.randint(task.size("train"), size, generator=self.collector.generator).tolist()
        return list({item.question: item for item in (task.item("train", index) for index in drawn)}.values())

    def replay(self, least: int) -> tuple[Tensor | None, Metrics]:
        """Mean negative log-likelihood of remembered successes under chains sampled now, once ``least`` are held."""
        count = self.settings.chains
        if not count or len(self.buffer.entries) < least:
            return None, {}
        cache, ids_NL, mask_NL = self.buffer.sample(count, self.collector.generator)
        states_NSH, mask_NS = cache.question_states()
        chains = self.collector.sample(states_NSH.float(), mask_NS, self._noise(count))
        ready = self.env.engine.space.inject(cache, chains.actions_NTD)
        nll_N = -self.env.engine.decoder.log_prob(ready, ids_NL, mask_NL)
        self.buffer.reweigh(nll_N.detach().clamp(*SURPRISE).tolist())
        nll = nll_N.mean()
        return self.settings.weight * nll, {
            "replay_nll": float(nll.detach()),
            "replay_size": len(self.buffer.entries),
        }

    def _noise(self, rows: int) -> Tensor:
        return self.settings.noise * self.collector.noise(rows)
