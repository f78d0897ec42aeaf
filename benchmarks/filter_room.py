"""What a scorer could gain by choosing among a question's chains before they are decoded.

    python benchmarks/filter_room.py runs/main --n 240

Sixteen chains of each validation question are sampled from the trained run and all are decoded. Then it is asked what
would have been found by decoding only ``--keep`` of each, chosen by signs that are there before decoding, and by two
that are not:

* at random (the exact expectation);
* nearness of a chain to the mean of its question's chains;
* confidence: the frozen model's entropy at the answer's first token, one pass for each chain;
* confidence at all tokens of the completion, which is known only once it has been decoded;
* likelihood of the *gold* answer, what scorer ``likelihood`` goes by.

And how many questions would be solved if as many decodes were spread over all questions by somebody who knew how often
each question's chains are right. Shown are questions solved (a kept chain is right), how many kept chains are right,
and the AUROC within questions whose chains are partly right, beside that over all chains. Prints Markdown.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sheet import Sheet, difference

from dlr_core import DLRPipeline
from dlr_core.calibration import auroc
from dlr_core.questions import distinct_items
from dlr_core.records import Item
from dlr_core.rollout import correctness
from dlr_core.stats import bootstrap_mean, pass_at_k

GROUP, AT_ONCE = 16, 8
Floats = NDArray[np.float64]
SIGNS = (
    "nearness to the question's mean chain",
    "confidence, first token",
    "confidence, all tokens (decoded)",
    "likelihood of gold",
)


@torch.no_grad()
def decoded(
    pipeline: DLRPipeline, items: Sequence[Item], generator: torch.Generator
) -> tuple[Floats, dict[str, Floats]]:
    """Of GROUP chains of every item, all (N, GROUP): 1.0 where right, and each of :data:`SIGNS`."""
    engine, space = pipeline.engine, pipeline.engine.space
    cache = engine.prefill([item.question for item in items])
    states_BSH, mask_BS = cache.question_states()
    noise_NTD = torch.randn(len(items) * GROUP, space.num_latents, space.latent_dim, generator=generator)
    chains = pipeline.assistant.sample(states_BSH.float(), mask_BS, noise_NTD.to(mask_BS.device))
    latents_NTD = chains.actions_NTD
    rows_N = torch.arange(len(items), device=mask_BS.device).repeat_interleave(GROUP)
    several = [item for item in items for _ in range(GROUP)]
    away_BGTD = latents_NTD.unflatten(0, (-1, GROUP))
    away_BGTD = away_BGTD - away_BGTD.mean(1, keepdim=True)

    def ready() -> Any:
        return engine.inject(cache, latents_NTD, rows_N)

    first = engine.decoder.decode(ready(), 1, entropy=True)
    whole = engine.decoder.decode(ready(), engine.max_new_tokens, entropy=True)
    ids_NL, mask_NL = engine.decoder.encode_targets([engine.task.gold_text(item) for item in several])
    gold_N = engine.decoder.log_prob(ready(), ids_NL, mask_NL)
    signs_N = (-away_BGTD.flatten(2).norm(dim=2).flatten(), -first.entropy_N, -whole.entropy_N, gold_N)
    right_N = correctness(engine.judge(several, whole))

    def grouped(values_N: torch.Tensor) -> Floats:
        shaped: Floats = values_N.view(-1, GROUP).double().cpu().numpy()
        return shaped

    return grouped(right_N), {name: grouped(sign_N) for name, sign_N in zip(SIGNS, signs_N, strict=True)}


def within(sign_BG: Floats, right_BG: Floats) -> float:
    """AUROC inside questions, mean over those that have right and wrong chains."""
    ones = torch.ones(GROUP)
    found = [auroc(torch.as_tensor(s), torch.as_tensor(r), ones) for s, r in zip(sign_BG, right_BG, strict=True)]
    return float(np.mean([value for value in found if value is not None]))


def over_all(sign_BG: Floats, right_BG: Floats) -> float:
    """AUROC over all chains of all questions."""
    found = auroc(torch.as_tensor(sign_BG.ravel()), torch.as_tensor(right_BG.ravel()), torch.ones(sign_BG.size))
    return float("nan") if found is None else found


def kept(sign_BG: Floats, right_BG: Floats, keep: int) -> Floats:
    """Right chains (B,) among each question's ``keep`` of the highest sign."""
    order_BK = np.argsort(-sign_BG, axis=1, kind="stable")[:, :keep]
    found: Floats = np.take_along_axis(right_BG, order_BK, 1).sum(1)
    return found


def spread_over_questions(right_BG: Floats, keep: int) -> Floats:
    """Questions solved (expected, B) if ``keep`` decodes a question went to wherever one more solves most."""
    hits_B = right_BG.sum(1).astype(int)
    solved = np.array([[pass_at_k(hits, GROUP, k) for k in range(GROUP + 1)] for hits in range(GROUP + 1)])
    given_B = np.zeros(len(hits_B), int)
    for _ in range(keep * len(hits_B)):
        next_B = np.minimum(given_B + 1, GROUP)
        given_B[np.where(given_B < GROUP, solved[hits_B, next_B] - solved[hits_B, given_B], -1.0).argmax()] += 1
    found: Floats = solved[hits_B, given_B]
    return found


def table(right_BG: Floats, signs: Mapping[str, Floats], keep: int) -> Sheet:
    """One row a way of choosing ``keep`` of GROUP."""
    rate_B = right_BG.mean(1)
    at_random_B = np.array([pass_at_k(int(hits), GROUP, keep) for hits in right_BG.sum(1)])

    def row(name: str, solved_B: Floats, right_B: Floats | None, *aurocs: float) -> tuple[str, ...]:
        gap_B = 100 * (solved_B - at_random_B)
        gap = difference(gap_B.mean(), bootstrap_mean(gap_B)) if gap_B.any() else ""
        shown = "" if right_B is None else f"{100 * right_B.mean():.1f}"
        told = [f"{value:.2f}" for value in aurocs] or ["", ""]
        return (name, f"{100 * solved_B.mean():.1f}", gap, shown, *told)

    rows = [row("at random", at_random_B, rate_B)]
    for name, sign_BG in signs.items():
        hits_B = kept(sign_BG, right_BG, keep)
        solved_B = (hits_B > 0).astype(float)
        rows.append(row(name, solved_B, hits_B / keep, within(sign_BG, right_BG), over_all(sign_BG, right_BG)))
    rows.append(row("as many, spread by who knows each question's rate", spread_over_questions(right_BG, keep), None))
    rows.append(row(f"all {GROUP}", (rate_B > 0).astype(float), rate_B))
    head = ("chosen by", "solved %", "− at random", "kept chains right %", "AUROC in a question", "over all chains")
    return Sheet(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Decode, choose, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=240, help="validation questions")
    parser.add_argument("--keep", type=int, default=3, help=f"of {GROUP}")
    asked = parser.parse_args(arguments)
    pipeline = DLRPipeline.from_run(asked.run)
    items = distinct_items(pipeline.engine.task, "validation", asked.n)
    generator = torch.Generator().manual_seed(0)
    found = [decoded(pipeline, items[start : start + AT_ONCE], generator) for start in range(0, len(items), AT_ONCE)]
    right_BG = np.concatenate([right for right, _ in found])
    signs = {name: np.concatenate([own[name] for _, own in found]) for name in SIGNS}
    print(table(right_BG, signs, asked.keep).markdown())
    hits_B = right_BG.sum(1)
    wrong, right = (hits_B == 0).mean(), (hits_B == GROUP).mean()
    print(
        f"\n{len(items)} questions: all chains wrong in {wrong:.0%}, all right in {right:.0%}: nothing to choose there."
    )


if __name__ == "__main__":
    main()
