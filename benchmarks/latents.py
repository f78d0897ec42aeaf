"""A run of ours with a learning curve: trained as ``dlr run`` trains it, with held-out questions asked on the way."""

from collections.abc import Sequence
from typing import Any

import other_tasks
from curves import Answer, Prober

from dlr_core.config import RunConfig
from dlr_core.evaluate import Evaluator
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer
from dlr_core.questions import distinct_items
from dlr_core.records import Item, Sample
from dlr_core.schedule import Schedule


def learn(
    config: RunConfig, host: PluginHost, *, questions: int, probes: int, others: bool = False
) -> dict[str, object]:
    """Train to the settings' limits.

    Args:
        config: a run's settings.
        host: every component.
        questions: distinct test questions of every point, and distinct validation questions at the end.
        probes: points of the curve after the first.
        others: whether the other tasks are asked before and after.

    Returns:
        ``{"curve", "right", "validation", "gold"}``, JSON-ready; ``right`` is the last point's, question by question.
        With ``others`` what :mod:`other_tasks` was answered, under that name.
    """
    trainer = build_trainer(config, host)
    engine = trainer.env.engine

    def switched_on(on: Any) -> Answer:
        evaluator = Evaluator(on)

        def answer(items: Sequence[Item]) -> list[Sample]:
            return evaluator.under_latents(items, evaluator.latents(items, trainer.assistant))

        return answer

    answer, plain = switched_on(engine), other_tasks.prompted("")
    prompt = other_tasks.prompted(str(config.space.options["anchor"]))
    earlier = {other_tasks.BEFORE: plain, other_tasks.PROMPT: prompt}
    later = {other_tasks.OFF: plain, other_tasks.ON: switched_on}
    before = other_tasks.ask(engine, host, earlier) if others else None
    prober = Prober(distinct_items(engine.task, "test", questions), probes)
    prober.take(answer, seconds=0.0, steps=0, flops=0, completions=0)
    schedule = Schedule(config.optim, trainer.total_steps, config.minutes)
    flops = completions = 0
    for metrics in trainer.run():
        flops += sum(metrics.get(f"{part}_flops") or 0 for part in ("main", "assistant", "scorer"))
        completions += int(metrics.get("decodes", 0) + metrics.get("search_decodes", 0))
        if prober.due(schedule.progress(trainer.step_number, trainer.seconds)):
            prober.take(
                answer, seconds=trainer.seconds, steps=trainer.step_number, flops=flops, completions=completions
            )
    chosen = answer(distinct_items(engine.task, "validation", questions))
    return {
        "curve": prober.curve,
        "right": prober.right,
        "validation": sum(sample.correct for sample in chosen) / max(len(chosen), 1),
        "gold": config.warmstart.steps > 0 or bool(getattr(trainer.estimator, "needs_gold", False)),
        **({"others": other_tasks.together(before, other_tasks.ask(engine, host, later))} if before else {}),
    }
