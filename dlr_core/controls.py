"""The control table: one trained policy and everything it must beat, on the same held-out questions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlr_core.baselines import Rival
from dlr_core.config import control_rows
from dlr_core.evaluate import Answers, Evaluator, Report, best_prompt
from dlr_core.host import PluginHost
from dlr_core.protocols import Assistant, Refiner
from dlr_core.questions import distinct_items
from dlr_core.records import Item, Sample
from dlr_core.splits import Split
from dlr_core.stats import bootstrap_mean, pass_at_k

ASKS_ASSISTANT = ("trained", "shuffled")
"""Rows whose chains the assistant writes anew for every question: its FLOPs are theirs."""


def control_table(
    engine: Any,
    assistant: Assistant,
    host: PluginHost,
    *,
    questions: int,
    split: Split = "test",
    seed: int = 0,
    prompt_questions: int = 128,
    k: int = 1,
    samples: int | None = None,
    only: Sequence[str] | None = None,
    rivals: Sequence[Rival] = (),
    refiner: Refiner | None = None,
    report: Report = lambda text: None,
) -> dict[str, Any]:
    """Accuracy of the trained assistant and of every control on the same distinct questions.

    Args:
        engine: the environment's engine.
        assistant: the trained assistant; its mean chain is decoded greedily.
        host: where the controls are registered.
        questions: how many distinct questions; fewer if the task has fewer.
        split: ``test`` for figures, ``validation`` for choices.
        seed: which questions (never training ones).
        prompt_questions: training questions on which the best prompt is chosen.
        k: with more than 1, also pass@1 … pass@k and maj@k of sampled chains, each decoded greedily.
        samples: how many chains are sampled for that, at least k; 2k if not given.
        only: rows wanted beside the trained one; all if not given.
        rivals: trained baselines, a row each.
        refiner: with one, a row of the trained latents as it improves them at test time.
        report: called with what is being done.

    Returns:
        ``{"split", "n", "rows": {name: {accuracy, ci, format, tokens, latents, gflops}}, "paired": {name: {difference,
        ci}}, "per_question": {name: [correctness]}}``; tokens, latents and gflops are per answer; differences are
        trained minus the row, their 95 % intervals paired over questions.
    """
    evaluator = Evaluator(engine)
    items = distinct_items(engine.task, split, questions, seed)
    controls = control_rows(host)
    names = [name for name in controls if only is None or name in only]
    rng = np.random.default_rng(seed)
    report("chains of the trained assistant")
    trained, written = evaluator.latents_and_flops(items, assistant)
    chains = {"trained": trained}
    for name in names:
        if (control := controls[name]) is not None:
            chains[name] = host.create("control", control)(trained, rng)
    report(f"trained latents and {len(chains) - 1} controls")
    rows = evaluator.under_each(items, chains)
    for name in set(ASKS_ASSISTANT) & set(rows):
        rows[name] = Answers(rows[name].samples, rows[name].flops + written)
    if "plain" in names:
        report("plain prompt")
        rows["plain"] = evaluator.under_prompt(items, "")
    notes: dict[str, dict[str, str]] = {}
    if "best_prompt" in names:
        prompt = best_prompt(evaluator, prompt_questions, report)
        report("best hand-written prompt")
        rows["best_prompt"] = evaluator.under_prompt(items, prompt)
        notes["best_prompt"] = {"prompt": prompt}
    if refiner is not None:
        report("trained latents, refined")
        better, spent = evaluator.refined(items, trained, refiner)
        row = evaluator.under_each(items, {"refined": better})["refined"]
        rows["refined"] = Answers(row.samples, row.flops + written + spent)
        chains["refined"] = better
        names.append("refined")
    latents = {name: engine.space.num_latents for name in chains if name != "anchor"}
    for rival in rivals:
        report(rival.label)
        own = Evaluator(engine.on(engine.task, engine.max_new_tokens, decoder=rival.decoder))
        rows[rival.name] = own.under_prompt(items, rival.prompt)
        notes[rival.name] = {"prompt": rival.prompt, "label": rival.label}
        latents[rival.name] = rival.virtual_tokens
        names.append(rival.name)
    names.append("trained")
    summaries = {n: {**summary(rows[n]), "latents": latents.get(n, 0), **notes.get(n, {})} for n in names}
    if k > 1:
        summaries["trained"] |= sampled_chains(evaluator, items, assistant, k, samples or 2 * k, rng, report)
    correct = {name: rows[name].correct_N for name in names}
    return {
        "split": split,
        "n": len(items),
        "rows": summaries,
        "paired": {name: paired(correct["trained"] - correct[name]) for name in names[:-1]},
        "per_question": {name: values.tolist() for name, values in correct.items()},
    }


def summary(answers: Answers) -> dict[str, Any]:
    """Accuracy with its interval, format rate, completion tokens and GFLOP per answer, JSON-ready."""
    count = max(len(answers.samples), 1)
    return {
        "accuracy": float(answers.correct_N.mean()) if answers.samples else 0.0,
        "ci": list(bootstrap_mean(answers.correct_N)),
        "format": sum(s.format for s in answers.samples) / count,
        "tokens": sum(s.tokens for s in answers.samples) / count,
        "gflops": answers.flops / count / 1e9,
    }


def paired(gaps_N: np.ndarray) -> dict[str, Any]:
    """Mean difference over questions, with its interval."""
    return {"difference": float(gaps_N.mean()) if len(gaps_N) else 0.0, "ci": list(bootstrap_mean(gaps_N))}


def sampled_chains(
    evaluator: Evaluator,
    items: Sequence[Item],
    assistant: Assistant,
    k: int,
    samples: int,
    rng: np.random.Generator,
    report: Report,
) -> dict[str, Any]:
    """pass@j for j up to k, unbiased, and maj@k, of chains sampled from the policy, each decoded greedily.

    maj@k is the mean over as many disjoint groups of k as the samples make; a tie goes to the answer that came first.
    """
    space = evaluator.engine.space
    draws: list[list[Sample]] = []
    for number in range(samples):
        report(f"sampled chains {number + 1}/{samples}")
        noise = rng.standard_normal((len(items), space.num_latents, space.latent_dim)).astype(np.float32)
        draws.append(evaluator.under_latents(items, evaluator.latents(items, assistant, noise)))
    right = [sum(sample.fully_right for sample in own) for own in zip(*draws, strict=True)]
    curve = {str(j): float(np.mean([pass_at_k(r, samples, j) for r in right])) for j in range(1, k + 1)}
    groups = [draws[start : start + k] for start in range(0, samples - k + 1, k)]
    majority = [majority_correct(own) for group in groups for own in zip(*group, strict=True)]
    return {
        "k": k,
        "samples": samples,
        "pass_at": curve,
        "pass_at_k": curve[str(k)],
        "maj_at_k": float(np.mean(majority)),
    }


def majority_correct(samples: Sequence[Sample]) -> float:
    """Correctness of the answer that most samples of one question gave."""
    top = Counter(sample.parsed for sample in samples).most_common(1)[0][0]
    return next(sample.correct for sample in samples if sample.parsed == top)
