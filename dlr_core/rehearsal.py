"""What a run does with its successes: find more of them, remember them, raise their likelihood under new latents."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlr_core.advantages import RARITY_FLOOR
from dlr_core.config import ReplaySettings
from dlr_core.frontier import Frontier, Prompt, prompts, restore_prompts
from dlr_core.records import Completions, Item, Sample
from dlr_core.replay import ReplayBuffer, Success, stack
from dlr_core.rollout import Collector, correctness, repeats

Metrics = dict[str, Any]
SURPRISE = (0.05, 3.0)
"""Bounds, in nats, of the loss that a replayed success is weighed by: prioritised replay (Schaul et al. 2016)."""


class Rehearsal:
    """Replay of the run's own correct completions, and the search that finds more of them."""

    def __init__(self, settings: ReplaySettings, collector: Collector, openings: Sequence[str] = ("",)) -> None:
        self.settings, self.collector, self.env = settings, collector, collector.env
        self.openings = tuple(openings)
        self.buffer = ReplayBuffer(settings.capacity)
        self.frontier = Frontier(settings.frontier)

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
        samples = [sample for prompts_B, opening, count in plan for sample in self._attempt(prompts_B, opening, count)]
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

    def _attempt(self, prompts_B: Sequence[Prompt], opening: str, count: int) -> list[Sample]:
        """``count`` completions of each prompt, sampled token by token; what is right is remembered."""
        if not prompts_B or not count:
            return []
        generator = self.collector.generator
        cache = stack([prompt.cache for prompt in prompts_B])
        states_BSH, mask_BS = cache.question_states()
        rows_N = torch.arange(len(prompts_B), device=mask_BS.device).repeat_interleave(count)
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.no_grad():
            chains = self.collector.sample(states_BSH.float(), mask_BS, self._noise(len(rows_N)))
        items = [prompt.item for prompt in prompts_B for _ in range(count)]
        judged: list[Sample]
        with self.collector.frozen.watch(self.collector.verifying):
            completions, judged = self.env.engine.complete(
                items, cache, rows_N, chains.actions_NTD, seed=seed, opening=opening
            )
        self.remember(prompts_B, completions, correctness(judged).view(-1, count))
        return judged

    def _draw_new(self, count: int) -> list[Prompt]:
        """Distinct training questions, prefilled; fewer if the task has fewer."""
        task, generator = self.env.engine.task, self.collector.generator
        drawn = torch.randint(task.size("train"), (count,), generator=generator).tolist()
        items = list({item.question: item for item in (task.item("train", index) for index in drawn)}.values())
        if not items:
            return []
        cache = self.env.engine.prefill([item.question for item in items])
        return prompts(items, cache, torch.arange(len(items), device=cache.mask_NS.device))

    def state(self) -> dict[str, Any]:
        """JSON-ready, for the checkpoint."""
        waiting = [prompt.state() for prompt in self.frontier.waiting.values()]
        return {"successes": self.buffer.state(), "frontier": waiting}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From :meth:`state`."""
        engine = self.env.engine

        def item(index: int) -> Item:
            found: Item = engine.task.item("train", index)
            return found

        self.buffer.restore(state["successes"], engine.prefill, item)
        self.frontier.waiting = {
            prompt.item.question: prompt for prompt in restore_prompts(state["frontier"], engine.prefill, item)
        }

    def replay(self, least: int) -> tuple[Tensor | None, Metrics]:
        """Mean negative log-likelihood of remembered successes under chains sampled now, once ``least`` are held."""
        count = self.settings.chains
        if not count or len(self.buffer.entries) < least:
            return None, {}
        cache, ids_NL, mask_NL = self.buffer.sample(count, self.collector.generator)
        states_NSH, mask_NS = cache.question_states()
        states_NSH = states_NSH.float()
        if self.settings.blur:
            noise_NSH = torch.randn(states_NSH.shape, generator=self.collector.generator).to(states_NSH.device)
            states_NSH = states_NSH + self.settings.blur * spread(states_NSH, mask_NS) * noise_NSH
        chains = self.collector.sample(states_NSH, mask_NS, self._noise(count))
        with self.collector.frozen.watch(f"space {type(self.env.engine.space).__name__}"):
            ready = self.env.engine.inject(cache, chains.actions_NTD)
        nll_N = -self.env.engine.decoder.log_prob(ready, ids_NL, mask_NL)
        self.buffer.reweigh((nll_N.detach().clamp(*SURPRISE) ** self.settings.priority).tolist())
        nll = nll_N.mean()
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
