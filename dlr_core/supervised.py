"""Training a baseline on gold answers: the batch, limits, schedule and optimiser of a run, no latents, no decoding."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from dlr_core.config import RunConfig
from dlr_core.cost import Ledger
from dlr_core.protocols import Baseline
from dlr_core.schedule import CLOCKS, Schedule

Metrics = dict[str, Any]


class SupervisedTrainer:
    """Raises log p_M(gold answer | question, prompt) under a baseline, on training questions.

    A step sees as many answers as a step of ``dlr run --estimator likelihood`` with the same settings, B·K. There they
    are B questions under K chains each; a baseline has nothing to vary within a question, so here they are B·K
    questions.
    """

    def __init__(self, config: RunConfig, engine: Any, baseline: Baseline, *, lr: float, prompt: str) -> None:
        self.config, self.engine, self.baseline, self.prompt = config, engine, baseline, prompt
        self.schedule = Schedule(config.optim, config.steps, config.minutes)
        self.rng = np.random.default_rng(config.seed)
        self.parameters: list[nn.Parameter] = baseline.trainable()
        self.lr = lr
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, betas=(0.9, 0.98))
        self.ledger = Ledger(engine.decoder.usage, engine.decoder.flops_per_token)
        self.clock = CLOCKS[config.clock]
        self.step_number, self.seconds = 0, 0.0

    def done(self) -> bool:
        """Whether a limit has been reached."""
        return self.schedule.over(self.step_number, self.seconds)

    def run(self) -> Iterator[Metrics]:
        """Train until done, yielding one step's metrics at a time."""
        while not self.done():
            yield self.step()

    def step(self) -> Metrics:
        """One update on the gold answers of newly drawn training questions."""
        began, spent = time.perf_counter(), self.clock()
        self.ledger.begin()
        progress = self.schedule.progress(self.step_number, self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule.rate(self.step_number, progress)
        task, rows = self.engine.task, self.config.batch.questions * self.config.decodes
        items = [task.item("train", int(index)) for index in self.rng.integers(task.size("train"), size=rows)]
        with self.ledger.phase("update"):
            log_prob_N = self.baseline.log_prob(
                [item.question for item in items], self.prompt, [task.gold_text(item) for item in items]
            )
            loss = -log_prob_N.mean()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.parameters, self.config.optim.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        self.seconds += self.clock() - spent
        return {
            "step": self.step_number,
            "phase": "supervised",
            "gold_nll": float(loss.detach()),
            "grad_norm": float(norm),
            **self.ledger.close(),
            "progress": progress,
            "seconds": time.perf_counter() - began,
        }
