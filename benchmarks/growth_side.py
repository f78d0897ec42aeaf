"""One trainer, its stores full, whose every step is the same work: CPU seconds by phase, peak memory, what is held."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from growth_points import Point
from growth_task import Plugin
from torch.profiler import ProfilerActivity, profile

from dlr_core.config import resolve
from dlr_core.frontier import Prompt
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer
from dlr_core.replay import Success

QUESTIONS = 4096
"""Of the task, once it is calibrated."""
PREFILLED = 8
"""Prompts that the stores are filled with copies of."""


def load_host() -> PluginHost:
    """All plugins, and the benchmark's own."""
    host = PluginHost.from_entry_points()
    host.add(Plugin(), "growth")
    return host


class Warm:
    """A run at one point, as it is once its stores are full."""

    def __init__(self, point: Point, model: str, host: PluginHost) -> None:
        self.trainer = build_trainer(resolve(point.settings(model), host), host)
        engine = self.trainer.env.engine
        self.decoder, self.task = engine.decoder, engine.task
        _never_ending(self.decoder)
        self.task.sizes = QUESTIONS
        if point.prompt is not None:
            self.task.words = max(0, point.prompt - self._prompts(1)[1])
        self.trainer.env.reset(options={"group_size": self.trainer.config.decodes})
        self.stored, self.positions = self._prompts(PREFILLED)
        self._fill()
        self._remember_moments()
        self.spent: Counter[str] = Counter()
        self.trainer.ledger.phase = self._phase  # type: ignore[method-assign]

    def _prompts(self, count: int) -> tuple[list[Any], int]:
        """Some questions, prefilled, and the positions of a prompt."""
        questions = [self.task.item("train", QUESTIONS + number).question for number in range(count)]
        with torch.no_grad():
            cache = self.trainer.env.engine.prefill(questions)
        rows = [cache.select(torch.tensor([row], device=cache.mask_NS.device)) for row in range(count)]
        return rows, cache.mask_NS.shape[1] + cache.pending_NPH.shape[1]

    def _fill(self) -> None:
        """Stores at their capacity; the prompts in them are few, and held once."""
        settings, limit = self.trainer.config.replay, self.trainer.env.engine.max_new_tokens
        draw = torch.Generator().manual_seed(0)

        def prompt(number: int) -> Prompt:
            item = self.task.item("train", QUESTIONS + number)
            return Prompt(item, (item.question,), 0, self.stored[number % PREFILLED])

        words = len(self.decoder.embedding_table())
        self.successes = [
            Success(prompt(number), tuple(torch.randint(words, (limit,), generator=draw).tolist()), 1.0)
            for number in range(settings.capacity)
        ]
        unsolved = [prompt(settings.capacity + number) for number in range(settings.frontier)]
        self.unsolved = {one.item.question: one for one in unsolved}

    def _remember_moments(self) -> None:
        """Adam's moments are there before the first step, so that they are held and not in its peak."""
        for parameter in self.trainer.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self.spent[name] += time.process_time() - began  # type: ignore[assignment]

    def step(self) -> dict[str, float]:
        """CPU seconds of a step under ``step``, and of its phases; every step finds the stores the same."""
        self.trainer.rehearsal.buffer.entries = list(self.successes)
        self.trainer.rehearsal.frontier.waiting = dict(self.unsolved)
        self.spent.clear()
        began = time.process_time()
        self.trainer.step()
        return {"step": time.process_time() - began, **self.spent}

    def peak(self) -> int:
        """Bytes of tensors that a step has at once above what was there when it began, as the allocator counts them."""
        return peak_of(self.step)

    def held(self) -> int:
        """Bytes between steps besides the main model: what is learned, its gradients and moments; prompts in stores."""
        settings, kept = self.trainer.config.replay, self.stored[0]
        tensors = (*kept.keys, *kept.values, kept.mask_NS, kept.states_NSH, kept.pending_NPH)
        learned = 4 * sum(parameter.nbytes for parameter in self.trainer.parameters)
        return learned + (settings.capacity + settings.frontier) * sum(tensor.nbytes for tensor in tensors)

    def weights(self) -> int:
        """Of the main model that a token is multiplied with, head included."""
        per_token = self.decoder.flops_per_token
        return (per_token.body + per_token.head) // 2


def peak_of(work: Callable[[], Any]) -> int:
    """Most bytes that PyTorch's CPU allocator had given out at once since some work began."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    now = highest = 0
    for _, change in changes:
        now += change
        highest = max(highest, now)
    return highest


def _never_ending(decoder: Any) -> None:
    """Let completions have all the tokens they may: what a step does then depends on its settings alone."""
    if "decode" in decoder.__dict__:
        return
    decode = decoder.decode

    def whole(*args: Any, **kwargs: Any) -> Any:
        ends, decoder.end_ids = decoder.end_ids, torch.tensor([-1], device=decoder.device)
        try:
            return decode(*args, **kwargs)
        finally:
            decoder.end_ids = ends

    decoder.decode = whole
