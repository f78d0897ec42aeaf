"""Traces: what was asked, what the latents look like, what the frozen model made of them."""

from collections.abc import Sequence
from typing import Any

import torch

from dlr_core.evaluate import Evaluator
from dlr_core.protocols import Assistant
from dlr_core.records import Item


def trace(engine: Any, assistant: Assistant, items: Sequence[Item]) -> list[dict[str, Any]]:
    """One JSON-ready row per question, under the assistant's mean chain."""
    evaluator = Evaluator(engine)
    latents_NTD = evaluator.latents(items, assistant)
    samples = evaluator.under_latents(items, latents_NTD)
    rows = []
    for latents_TD, sample in zip(latents_NTD, samples, strict=True):
        actions = torch.as_tensor(latents_TD, device=engine.decoder.device)
        rows.append(
            {
                "question": sample.question,
                "answer": sample.answer,
                "completion": sample.completion,
                "parsed": sample.parsed,
                "correct": sample.correct,
                "format": sample.format,
                "reward": float(engine.reward(sample)),
                "latent_rms": [round(float(x), 4) for x in actions.square().mean(-1).sqrt()],
                "nearest_tokens": engine.space.nearest_tokens(actions),
            }
        )
    return rows
