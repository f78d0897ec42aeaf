"""What a run does with its successes: find more of them, remember them, raise their likelihood under new latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from dlr_core.advantages import rarity
from dlr_core.aside import Pending
from dlr_core.everyone import joined_completions, joined_items, nothing_completed
from dlr_core.frontier import Frontier
from dlr_core.parts import parts
from dlr_core.prompt_store import Disk, InMemory
from dlr_core.question_cache import QuestionCache
from dlr_core.records import Completions, Item, PromptCache, Sample
from dlr_core.replay import ReplayBuffer, Success, padded
from dlr_core.rollout import Collector, correctness
from dlr_core.settings import ReplaySettings

Metrics = dict[str, Any]
SURPRISE = (0.05, 3.0)
"""Bounds, in nats, of the loss that a replayed success is weighed by: prioritised replay (Schaul et al. 2016)."""


@dataclass(frozen=True)
class Wanted:
    """Completions that the search asks for."""

    item: Item
    opening: str
    """Text that they begin with."""
    count: int


class Rehearsal:
    """Replay of the run's own correct completions, and the search that finds more of them."""

    def __init__(self, settings: ReplaySettings, collector: Collector, openings: Sequence[str] = ("",)) -> None:
        self.settings, self.collector, self.env = settings, collector, collector.env
        self.ranks = collector.ranks
        self.openings = tuple(openings)
        self.buffer = ReplayBuffer(settings.capacity)
        self.frontier = Frontier(settings.frontier)
        self.questions = self._no_questions()

    def take(
        self, own_B: Sequence[Item], cache: PromptCache, completions: Completions, correct_BK: Tensor, rate_B: Tensor
    ) -> None:
        """:meth:`remember` what all ranks have decoded.

        Args:
            own_B: this rank's questions.
            cache: prompts of the distinct ones, in their order, without latents.
            completions: this rank's.
            correct_BK: 1.0 where right, of every rank's.
            rate_B: share of each question's chains that are right.
        """
        if self.settings.chains:
            self.questions.keep(list(dict.fromkeys(item.question for item in own_B)), cache)
            everyone_B = joined_items(self.ranks, own_B, self._item)
            self.remember(everyone_B, joined_completions(self.ranks, completions), correct_BK, rate_B)

    def remember(self, items_B: Sequence[Item], completions: Completions, correct_BK: Tensor, rate_B: Tensor) -> None:
        """Keep the first correct completion of each question, the rarer success the heavier; note what has none.

        One, because of many different ones most say the same at greater length: they would crowd other questions out.

        Args:
            items_B: the questions.
            completions: B·K of them, K in a row for each question, of one chain or of several.
            correct_BK: 1.0 where right.
            rate_B: how often each question is answered right.
        """
        if not self.settings.chains:
            return
        group, outcomes = correct_BK.shape[1], zip(correct_BK.bool().tolist(), rate_B.tolist(), strict=True)
        for row, (item, (right_K, rate)) in enumerate(zip(items_B, outcomes, strict=True)):
            if not any(right_K):
                self.frontier.add(item)
                continue
            n = row * group + right_K.index(True)
            ids = completions.ids_NL[n][completions.mask_NL[n].bool()].tolist()
            self.buffer.add(Success(item, tuple(ids), rarity(rate) ** self.settings.priority))
            self.frontier.solve(item.question)

    def search(self) -> Metrics:
        """Sample tokens on further training questions; what comes out right is remembered, and no more.

        Greedy decoding of latents gives few different answers; different completions under one chain, tokens sampled
        without replacement where the decoder can, find successes that it misses. Some questions are new, and begin with
        the first opening; the rest are tried again, those that nothing has solved yet, and there the openings take
        turns.
        """
        if not self.settings.search or not self.settings.chains:
            return {}
        generator = self.collector.generator
        again = self.frontier.draw(self.settings.search - self.settings.fresh, generator)
        known = {item.question for item in again}
        new = [item for item in self._draw_new(self.settings.search - len(again)) if item.question not in known]
        tries, openings = self.settings.tries, self.openings
        shares = [len(range(place, tries, len(openings))) for place in range(len(openings))]
        wanted = [Wanted(item, openings[0], tries) for item in new]
        wanted += [
            Wanted(item, text, count) for text, count in zip(openings, shares, strict=True) for item in again if count
        ]
        with self.collector.frozen.watch(self.collector.verifying):
            samples = self._learned(wanted, *self._attempt(wanted))
        correct_N = correctness(samples)
        solved = {sample.question for sample, right in zip(samples, correct_N.tolist(), strict=True) if right}
        for question in solved:  # of one that several openings tried, one may have failed after another had not
            self.frontier.solve(question)
        return {
            "search_correct": float(correct_N.mean()),
            "search_best": len(solved) / len([*new, *again]),
            "search_decodes": len(samples),
            "search_tokens": sum(sample.tokens for sample in samples),
            "frontier": len(self.frontier.waiting),
        }

    def _attempt(self, wanted: Sequence[Wanted]) -> tuple[Completions, list[Sample]]:
        """Completions of questions, sampled token by token, and verdicts; of several ranks, all ranks'.

        They are written in one batch, or ``at_once`` questions at a time: some are judged while others are written.
        """
        share = self.ranks.share(len(wanted))
        seed = int(torch.randint(2**31, (), generator=self.collector.generator))
        noise_NTD, own = self._noise(len(wanted))[share], wanted[share]
        written = [
            self._sampled(own[part], noise_NTD[part], seed, share.start + part.start)
            for part in parts(len(own), self.settings.at_once)
        ]
        rows = [row for completions, _ in written for row in completions.written()]
        completions = Completions.of(rows, noise_NTD.device) if rows else nothing_completed(noise_NTD.device)
        judged = [sample for _, judging in written for sample in judging.result()]
        return joined_completions(self.ranks, completions), self.ranks.join(judged)

    def _sampled(
        self, wanted: Sequence[Wanted], noise_NTD: Tensor, seed: int, first: int
    ) -> tuple[Completions, Pending[list[Sample]]]:
        """Completions of each question, under one chain of it; the first is number ``first`` of all."""
        cache, rows_N = self._prompts([one.item for one in wanted])
        states_BSH, mask_BS = cache.question_states()
        with torch.no_grad():
            chains = self.collector.sample(states_BSH[rows_N].float(), mask_BS[rows_N], noise_NTD)
        done: tuple[Completions, Pending[list[Sample]]] = self.env.engine.complete(
            [one.item for one in wanted], cache, rows_N, chains.actions_NTD, seed=seed, first=first,
            counts=[one.count for one in wanted], openings=[one.opening for one in wanted],
        )  # fmt: skip
        return done

    def _learned(self, wanted: Sequence[Wanted], completions: Completions, samples: list[Sample]) -> list[Sample]:
        """Remember what is right among completions; the samples."""
        correct_N, start = correctness(samples), 0
        for count, alike in groupby(wanted, key=lambda one: one.count):
            items = [one.item for one in alike]
            rows = slice(start, start + count * len(items))
            right_BK = correct_N[rows].view(-1, count)
            self.remember(items, completions.rows(rows), right_BK, right_BK.mean(1))
            start = rows.stop
        return samples

    def _draw_new(self, count: int) -> list[Item]:
        """Distinct training questions; fewer if the task has fewer."""
        task, generator = self.env.engine.task, self.collector.generator
        drawn = torch.randint(task.size("train"), (count,), generator=generator).tolist()
        return list({item.question: item for item in (task.item("train", index) for index in drawn)}.values())

    def cache_logs(self) -> Metrics:
        """How the question cache has done in a step."""
        return self.questions.log() if self.settings.chains else {}

    def state(self) -> dict[str, Any]:
        """JSON-ready, for the checkpoint."""
        waiting = [{"index": item.index} for item in self.frontier.waiting.values()]
        return {"successes": self.buffer.state(), "frontier": waiting, "questions": self.questions.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From :meth:`state`; of several ranks each prefills a question when it first needs it.

        So does one that restores what was written without a question cache.
        """
        self.buffer.restore(state["successes"], self._item)
        waiting = [self._item(saved["index"]) for saved in state["frontier"]]
        self.frontier.waiting = {item.question: item for item in waiting}
        self.questions = self._no_questions()
        if self.ranks.size == 1 and "questions" in state:
            self.questions.restore(state["questions"])

    def _no_questions(self) -> QuestionCache:
        on_disk = self.settings.cached_on_disk(self.env.engine.decoder.device.type)
        return QuestionCache(self.env.engine.prefill, self.settings.cache_bytes, Disk().keep if on_disk else InMemory)

    def _item(self, index: int) -> Item:
        found: Item = self.env.engine.task.item("train", index)
        return found

    def replay(self, least: int, backward: Callable[[Tensor], None]) -> Metrics:
        """Learn from remembered successes under chains sampled now, once ``least`` are held.

        Args:
            least: with fewer nothing is done and nothing is logged.
            backward: is given the loss, their mean negative log-likelihood: of ``at_once`` successes at a time, as
                parts that add up to it.
        """
        count = self.settings.chains
        if not count or len(self.buffer.entries) < least:
            return {}
        own = self.ranks.share(count)
        drawn = self.buffer.sample(count, self.collector.generator)[own]
        noise_NTD = self._noise(count)[own]
        weight = self.settings.weight * self.ranks.size / count  # of one success; shares may differ by one
        total, surprise = 0.0, []
        for part in parts(len(drawn), self.settings.at_once):
            nll_N = self._nll(drawn[part], noise_NTD[part])
            backward(weight * nll_N.sum())
            total += float(nll_N.detach().sum())
            surprise += (nll_N.detach().clamp(*SURPRISE) ** self.settings.priority).tolist()
        self.buffer.reweigh(self.ranks.join(surprise))
        return {"replay_nll": total * self.ranks.size / count, "replay_size": len(self.buffer.entries)}

    def _nll(self, drawn: Sequence[Success], noise_NTD: Tensor) -> Tensor:
        """Negative log-likelihood (N,) of successes, each under a chain sampled now, attached to the graph."""
        ready = self._ready([success.item for success in drawn], noise_NTD)
        ids_NL, mask_NL = padded(drawn, ready.mask_NS.device)
        log_prob_N: Tensor = self.env.engine.decoder.log_prob(ready, ids_NL, mask_NL)
        return -log_prob_N

    def _ready(self, items: Sequence[Item], noise_NTD: Tensor) -> PromptCache:
        """Prompts with chains sampled now, of states that are blurred where that is set; nothing else stays."""
        cache, rows_N = self._prompts(items)
        cache = cache.share(rows_N)
        states_NSH, mask_NS = cache.question_states()
        states_NSH = states_NSH.float()
        if self.settings.blur:
            blur_NSH = torch.randn(states_NSH.shape, generator=self.collector.generator).to(states_NSH.device)
            states_NSH = states_NSH + self.settings.blur * spread(states_NSH, mask_NS) * blur_NSH
        chains = self.collector.sample(states_NSH, mask_NS, noise_NTD, keeping=False)
        with self.collector.frozen.watch(f"space {type(self.env.engine.space).__name__}"):
            ready: PromptCache = self.env.engine.inject(cache, chains.actions_NTD)
        return ready

    def _prompts(self, items: Sequence[Item]) -> tuple[PromptCache, Tensor]:
        """Prompts of the distinct questions, and which of them each item has."""
        place = {question: row for row, question in enumerate(dict.fromkeys(item.question for item in items))}
        cache = self.questions.prompts(list(place))
        return cache, torch.tensor([place[item.question] for item in items], device=cache.mask_NS.device)

    def _noise(self, rows: int) -> Tensor:
        return self.settings.noise * self.collector.noise(rows)


def spread(states_NSH: Tensor, mask_NS: Tensor) -> Tensor:
    """Standard deviation (S, H) over the rows that have a state there; zero where all agree, as in a template."""
    real_NS1 = mask_NS[..., None].bool()
    count_S1 = real_NS1.sum(0).clamp(min=1)
    mean_SH = torch.where(real_NS1, states_NSH, 0.0).sum(0) / count_S1
    return (torch.where(real_NS1, states_NSH - mean_SH, 0.0).square().sum(0) / count_S1).sqrt()
