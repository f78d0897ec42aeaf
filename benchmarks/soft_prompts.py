"""PEFT's prompt and prefix tuning with a learning curve: trained as ``dlr baseline`` trains them, on gold answers."""

from typing import Any

import other_tasks
import torch
from curves import Answer, Prober

from dlr_core.config import RunConfig
from dlr_core.host import PluginHost
from dlr_core.pipeline import make_engine
from dlr_core.questions import distinct_items
from dlr_core.supervised import SupervisedTrainer


def learn(
    config: RunConfig, host: PluginHost, method: str, rate: float, *, questions: int, probes: int
) -> dict[str, object]:
    """Train to the settings' limits, as many virtual tokens as a run has latents, with a run's anchor as the prompt.

    Args:
        config: a run's settings; a step sees as many gold answers as a run's rollout has completions.
        host: every component.
        method: ``prefix`` or ``prompt``.
        rate: learning rate.
        questions: as for :func:`latents.learn`.
        probes: likewise.

    Returns:
        What :func:`latents.learn` returns.
    """
    torch.manual_seed(config.seed)
    engine, prompt = make_engine(config, host), str(config.space.options["anchor"])
    options = {"lr": rate, "num_virtual_tokens": engine.space.num_latents}
    baseline: Any = host.create("baseline", method, options, decoder=engine.decoder)
    trainer = SupervisedTrainer(config, engine, baseline, lr=rate, prompt=prompt)

    def switched_on(on: Any) -> Answer:
        return other_tasks.prompted(prompt)(on.on(on.task, on.max_new_tokens, decoder=baseline.adapted()))

    answer, plain, flops = switched_on(engine), other_tasks.prompted(""), 0
    prober = Prober(distinct_items(engine.task, "test", questions), probes)
    prober.take(answer, seconds=0.0, steps=0, flops=0, completions=0)
    ways = {other_tasks.BEFORE: plain, other_tasks.PROMPT: other_tasks.prompted(prompt)}
    before = other_tasks.ask(engine, host, ways)
    for metrics in trainer.run():
        flops += metrics["main_flops"]
        if prober.due(trainer.schedule.progress(trainer.step_number, trainer.seconds)):
            prober.take(answer, seconds=trainer.seconds, steps=trainer.step_number, flops=flops, completions=0)
    chosen = answer(distinct_items(engine.task, "validation", questions))
    ways = {other_tasks.OFF: plain, other_tasks.ON: switched_on}
    return {
        "curve": prober.curve,
        "right": prober.right,
        "validation": sum(sample.correct for sample in chosen) / max(len(chosen), 1),
        "gold": True,
        "others": other_tasks.together(before, other_tasks.ask(engine, host, ways)),
    }
