"""The true vector environment: every sub-environment decodes in one batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from dlr_core.errors import ConfigError, shown
from dlr_core.records import Item
from dlr_core.splits import SPLITS, Split
from dlr_envs.arguments import all_true, sequence, table, whole
from dlr_envs.build import build_engine
from dlr_envs.engine import Engine, Floats, Outcome

Info = dict[str, Any]

MOST = 2**20
"""Sub-environments."""
MODES = (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
"""NEXT_STEP is left out: every second step of a one-step episode would be a wasted reset."""


def spaces_of(engine: Engine) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Observation and action space of one environment."""
    bound = engine.decoder.state_bound().numpy().astype(np.float32)
    observation = gymnasium.spaces.Box(-bound, bound, dtype=np.float32)
    return observation, gymnasium.spaces.Box(-1.0, 1.0, (engine.action_width,), np.float32)


def draw_item(engine: Engine, split: Split, generator: np.random.Generator) -> Item:
    """A random question of a split."""
    return engine.task.item(split, int(generator.integers(engine.task.size(split))))


class LatentVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments whose actions are latents; see :func:`dlr_envs.build.build_engine` for the keyword arguments.

    ``reset(options={"index": [...], "group_size": K})`` puts K consecutive sub-environments on each question (the group
    size stays until the next reset). Autoreset is SAME_STEP; with ``autoreset_mode="Disabled"`` an ended episode stays
    ended until ``reset`` (TorchRL wants that). Learners that use gradients find ``question_states``, ``log_prob`` and
    ``gold_log_prob`` here; nothing but the latents (and a joint chart) is ever differentiated.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self,
        num_envs: int = 1,
        split: Split = "train",
        engine: Engine | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **kwargs: Any,
    ) -> None:
        num_envs = whole("num_envs", num_envs, 1, MOST)
        if split not in SPLITS:
            raise ConfigError(f"expected a split of {', '.join(SPLITS)}, got {shown(split)}")
        if autoreset_mode not in MODES and autoreset_mode not in [mode.value for mode in MODES]:
            names = " or ".join(repr(mode.value) for mode in MODES)
            raise ConfigError(f"autoreset_mode: expected {names}, got {autoreset_mode!r}")
        self.num_envs, self.split = num_envs, split
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.engine = engine or build_engine(**kwargs)
        self.single_observation_space, self.single_action_space = spaces_of(self.engine)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.group_size = 1
        self.generators = [np.random.default_rng() for _ in range(num_envs)]
        self.finished: Outcome | None = None
        """The episodes that the last step ended."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Floats, Info]:
        """Start every sub-environment, on random questions or on those given by ``options["index"]``.

        ``options["reset_mask"]``, Gymnasium's way to reset where autoreset is disabled, must name all sub-environments:
        they act together and so end together.

        Raises:
            ConfigError: a group size that does not divide the environments, a wrong number of indices or seeds, what is
                no whole number, a partial mask. Nothing has changed then.
        """
        options = table("options", options)
        if not all_true("reset_mask", options.get("reset_mask", True)):
            raise ConfigError("reset_mask: expected every sub-environment, as they act together; got a part of them")
        seeds = self._seeds(seed)
        group_size = whole("group_size", options.get("group_size", 1), 1)
        if self.num_envs % group_size:
            raise ConfigError(f"group_size: expected a divisor of {self.num_envs}, got {group_size}")
        items = None
        if "index" in options:
            index = [whole("index", i, 0) for i in sequence("index", options["index"])]
            if len(index) != self.num_envs // group_size:
                raise ConfigError(f"index: expected {self.num_envs // group_size} questions, got {len(index)}")
            items = [self.engine.task.item(self.split, i) for i in index]
        self.group_size = group_size
        for number, value in enumerate(seeds):
            if value is not None:
                self.generators[number] = np.random.default_rng(value)
        return self._begin(items)

    def _seeds(self, seed: Any) -> list[int | None]:
        """A seed for every sub-environment: one after the other from one number, or as they are given."""
        if seed is None:
            return []
        if isinstance(seed, int | np.integer):
            first = whole("seed", seed, 0)
            return [first + number for number in range(self.num_envs)]
        given = [None if value is None else whole("seed", value, 0) for value in sequence("seed", seed)]
        if len(given) > self.num_envs:
            raise ConfigError(f"seed: expected at most {self.num_envs} seeds, got {len(given)}")
        return given

    def _begin(self, items: list[Item] | None = None) -> tuple[Floats, Info]:
        if items is None:
            leaders = self.generators[:: self.group_size]
            items = [draw_item(self.engine, self.split, generator) for generator in leaders]
        self.groups = items
        everyone = [item for item in items for _ in range(self.group_size)]
        observation = self.engine.begin(everyone)
        return observation, self._info(
            [{"question": item.question, "index": item.index, "answer": item.answer} for item in everyone]
        )

    def _info(self, rows: Sequence[Mapping[str, Any]]) -> Info:
        info: Info = {}
        for number, row in enumerate(rows):
            info = self._add_info(info, dict(row), number)
        return info

    def step(self, actions: NDArray[Any]) -> tuple[Floats, NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        """One action each. When episodes end, the observation is the next question's, unless autoreset is disabled.

        Raises:
            ActionError: bad actions, or an episode that has ended.
        """
        observation, ending = self.engine.act(actions, self.generators)
        no, zeros = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, np.float64)
        if ending is None:
            return observation, zeros, no, no.copy(), {}
        again = self.autoreset_mode != AutoresetMode.DISABLED
        following, info = self._begin() if again else (observation, {})  # the next prompts are read …
        try:
            self.finished = outcome = ending.result()  # … while the verdicts on these completions are given
        except BaseException:
            self.engine.abandon()
            raise
        rewards = outcome.rewards_N.astype(np.float64)
        ended = self._info([self.engine.describe(outcome, number) for number in range(self.num_envs)])
        if not again:
            return observation, rewards, ~no, no, ended
        last = np.empty(self.num_envs, object)
        last[:] = list(observation)
        info["final_obs"], info["_final_obs"] = last, ~no
        info["final_info"], info["_final_info"] = ended, ~no
        return following, rewards, ~no, no, info

    # ---- for learners that use gradients -------------------------------------------------------------------------

    def question_states(self) -> tuple[Tensor, Tensor]:
        """The frozen model's states of the current questions, one row per group: (B, S, H) and mask (B, S)."""
        states_USH, mask_US = self.engine.cache.question_states()
        first = self.engine.rows_N[:: self.group_size]
        return states_USH[first].float(), mask_US[first]

    def log_prob(self, actions_NTD: Tensor, completion_ids_NL: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p_M(completion | question, latents) of completions the last step ended, at the sampling temperature.

        Args:
            actions_NTD: latents in [-1, 1], one chain per completion; gradients flow into them.
            completion_ids_NL: token ids as ``finished.completions`` holds them.
            rows: which completions are meant (several of an episode stand in a row); all if None.

        Raises:
            ConfigError: no episode has ended yet.
        """
        if self.finished is None:
            raise ConfigError("log_prob needs finished episodes: call step first")
        done = self.finished
        everyone = torch.arange(len(done.samples), device=done.rows_N.device)
        rows = everyone if rows is None else rows
        ready = self.engine.inject(done.cache, actions_NTD, done.rows_N[rows // done.several])
        mask_NL = done.completions.mask_NL[rows][:, : completion_ids_NL.shape[1]]
        return self.engine.decoder.log_prob(ready, completion_ids_NL, mask_NL, self.engine.temperature or 1.0)

    def gold_log_prob(self, actions_NTD: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p_M(gold answer | current question, latents), for supervised baselines and warm starts only."""
        engine = self.engine
        rows = torch.arange(self.num_envs, device=engine.rows_N.device) if rows is None else rows
        texts = [engine.task.gold_text(engine.items[int(row)]) for row in rows]
        ids_NL, mask_NL = engine.decoder.encode_targets(texts)
        ready = engine.inject(engine.cache, actions_NTD, engine.rows_N[rows])
        return engine.decoder.log_prob(ready, ids_NL, mask_NL)

    # ---- for exact resume ----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything needed to continue between episodes: generators and current questions (JSON-ready)."""
        return {
            "group_size": self.group_size,
            "index": [item.index for item in self.groups],
            "generators": [generator.bit_generator.state for generator in self.generators],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state`."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.reset(options={"group_size": state["group_size"], "index": state["index"]})
