"""The settings between which a step is compared: one of them at a time moves away from the default run's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlr_core.assignments import merge

REAL = "smollm2-135m"
WORDS = (4, 28, 76, 172, 352)
"""Put before a question: prompts of some 50 to 400 positions. Without any, as on the other axes, all begin with one
sentence, which is prefilled once; with words of its own before it each prompt is prefilled whole."""


@dataclass(frozen=True)
class RandomModel:
    """Sizes of a random model of SmolLM2's kind: heads of 64, three queries to a key, its vocabulary."""

    hidden: int
    layers: int

    def config(self) -> dict[str, int]:
        """As Transformers' configuration calls them; the MLP is 8/3 as wide as the rest."""
        heads = self.hidden // 64
        return {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 3,
            "intermediate_size": self.hidden * 8 // 3,
        }


MODELS = (RandomModel(192, 12), RandomModel(384, 20), RandomModel(576, 30), RandomModel(768, 36))


@dataclass(frozen=True)
class Point:
    """One setting of a step."""

    axis: str
    value: float
    """On the axis; of models and prompts, which of them: how large they are is measured."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    words: int = 0
    model: RandomModel | None = None
    """None: the real one."""

    @property
    def same(self) -> str:
        """Equal for points of several axes that are one and the same step."""
        return repr((sorted(self.settings.items()), self.words, self.model))

    def values(self, folders: Mapping[RandomModel, Path]) -> dict[str, Any]:
        """Settings of a run; a random model is in its folder."""
        model = REAL if self.model is None else str(folders[self.model])
        made: dict[str, Any] = {"env": "dlr/Growth-v0", "steps": 10_000, "minutes": None, "loggers": [],
                                "decoder": {"model": model}, "probe": {"every": 0}}  # fmt: skip
        for key, value in self.settings.items():
            merge(made, key.split("."), value)
        return made


def setting(axis: str, key: str, values: tuple[int, ...], default: int) -> list[Point]:
    """An axis that is a run's setting."""
    return [Point(axis, value, {} if value == default else {key: value}) for value in values]


AXES = {
    "B": setting("B", "batch.questions", (1, 2, 4, 8, 16), 4),
    "K": setting("K", "batch.samples", (2, 4, 8, 16, 32), 8),
    "T": setting("T", "space.num_latents", (2, 4, 8, 16, 32), 8),
    "prompt": [Point("prompt", words, words=words) for words in WORDS],
    "model": [Point("model", number, model=model) for number, model in enumerate(MODELS)],
}
MEANING = {
    "B": "questions in a step (B)",
    "K": "chains of a question, all decoded (K = G)",
    "T": "latents (T)",
    "prompt": "positions of a prompt",
    "model": "main model, M weights a position meets",
}
