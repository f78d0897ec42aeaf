"""Is anything forgotten? The frozen model without latents, and other tasks with a run's latents and without.

Frozen weights make the first question easy, and it is asked all the same: the digest against the one taken before
training, and completions token for token against a model loaded anew. The second is the honest part: an assistant that
is left switched on writes its latents on every question, also on those of tasks that it was never trained on.
"""

from collections.abc import Sequence
from typing import Any

from dlr_core.controls import paired, summary
from dlr_core.errors import ConfigError
from dlr_core.evaluate import Answers, Evaluator, Report
from dlr_core.pipeline import DLRPipeline
from dlr_core.questions import distinct_items

OTHER_TASKS = (
    "reasoning-gym:letter_counting",
    "reasoning-gym:gcd",
    "reasoning-gym:syllogism",
    "reasoning-gym:calendar_arithmetic",
    "reasoning-gym:isomorphic_strings",
)
MAX_NEW_TOKENS = 16


def retention(
    trained: DLRPipeline,
    digest_before: str,
    *,
    count: int = 200,
    tasks: Sequence[str] = OTHER_TASKS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    report: Report = lambda text: None,
) -> dict[str, Any]:
    """Measure what a trained run leaves of the frozen model's other abilities.

    Args:
        trained: the run.
        digest_before: the main model's digest before training.
        count: questions over all tasks, an equal number of each, out of their test splits.
        tasks: names; those of the run's own task are refused.
        max_new_tokens: limit on a completion.
        report: called with what is being done.

    Returns:
        ``{"identical", "of", "tasks": {name: {"n", "without", "anchor", "with", "difference"}}, "digest"}``: plain
        prompts without latents, the anchor text alone, the trained latents; the difference, with minus without, is
        paired.

    Raises:
        ConfigError: fewer than one question a task, or the run's own task among them.
    """
    if count < len(tasks) or trained.task in tasks:
        raise ConfigError(f"retention needs a question of each of {len(tasks)} tasks other than the run's own")
    host, decoder = trained.host, trained.config.decoder
    report("a second copy of the main model")
    untouched = host.create("decoder", decoder.name, decoder.options)
    rows: dict[str, dict[str, Any]] = {}
    identical = asked = 0
    for number, task in enumerate(tasks):
        report(task)
        engine = trained.engine.on(host.create("task", task), max_new_tokens)
        evaluator = Evaluator(engine)
        items = distinct_items(engine.task, "test", len(range(number, count, len(tasks))))
        latents = evaluator.latents(items, trained.assistant)
        under = evaluator.under_each(items, {"anchor": 0.0 * latents, "with": latents})
        without = evaluator.under_prompt(items, "")
        before = Evaluator(engine.on(engine.task, max_new_tokens, decoder=untouched)).under_prompt(items, "")
        identical += _same(before, without)
        asked += len(items)
        rows[task] = {
            "n": len(items),
            "without": summary(without),
            "anchor": summary(under["anchor"]),
            "with": summary(under["with"]),
            "difference": paired(under["with"].correct_N - without.correct_N),
        }
    digest = {"before": digest_before, "after": trained.engine.decoder.fingerprint()}
    return {"identical": identical, "of": asked, "tasks": rows, "digest": digest}


def _same(first: Answers, second: Answers) -> int:
    pairs = zip(first.samples, second.samples, strict=True)
    return sum((a.completion, a.tokens) == (b.completion, b.tokens) for a, b in pairs)
