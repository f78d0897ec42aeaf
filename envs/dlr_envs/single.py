"""The single environment: a vector of one, without autoreset."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from dlr_core.errors import ConfigError, shown
from dlr_core.splits import SPLITS, Split
from dlr_envs.arguments import as_array, table, whole
from dlr_envs.build import build_engine
from dlr_envs.engine import Engine, Floats
from dlr_envs.vector import draw_item, spaces_of


class LatentEnv(gymnasium.Env[Any, Any]):
    """One question an episode; the action is a latent chain, or one part of it.

    See :func:`dlr_envs.build.build_engine` for the arguments. ``reset(options={"index": i})`` chooses a question.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        split: Split = "train",
        engine: Engine | None = None,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"expected a split of {', '.join(SPLITS)}, got {shown(split)}")
        self.split, self.render_mode = split, render_mode
        self.engine = engine or build_engine(**kwargs)
        self.observation_space, self.action_space = spaces_of(self.engine)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Start an episode on a random question, or on ``options["index"]``.

        Raises:
            ConfigError: a seed or an index that is no whole number.
        """
        if seed is not None:
            seed = whole("seed", seed, 0)
        super().reset(seed=seed)
        if seed is not None:
            # The generator of a vector sub-environment of that seed: equal seeds give equal episodes in both.
            self.np_random = np.random.default_rng(seed)
        options = dict(table("options", options))
        if "index" in options:
            item = self.engine.task.item(self.split, whole("index", options["index"], 0))
        else:
            item = draw_item(self.engine, self.split, self.np_random)
        observation = self.engine.begin([item])
        return observation[0], {"question": item.question, "index": item.index, "answer": item.answer}

    def step(self, action: NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Give the next latents; the episode terminates with the last of them."""
        observation, ending = self.engine.act(as_array(action)[None], [self.np_random])
        if ending is None:
            return observation[0], 0.0, False, False, {}
        outcome = ending.result()
        return observation[0], float(outcome.rewards_N[0]), True, False, dict(self.engine.describe(outcome, 0))
