"""The laws of a latent environment, checked: what Gymnasium's and SB3's own checkers cannot know."""

from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlr_core.errors import PluginError
from dlr_core.records import Completions, PromptCache
from dlr_envs.engine import Engine, Floats, Outcome
from dlr_envs.single import LatentEnv
from dlr_envs.vector import LatentVectorEnv

NEAR_TIE = 1e-4
"""Two next tokens whose logits are closer than this may change places with the shape of a batch."""


@dataclass(frozen=True)
class LatentEnvReport:
    """What :func:`check_latent_env` compared."""

    env_id: str
    completions: int
    """Pairs of completions compared."""
    near_ties: int
    """Pairs that part at a near-tie of logits: counted, not failed."""


def check_latent_env(env_id: str, *, episodes: int = 4, seed: int = 0, **make_kwargs: Any) -> LatentEnvReport:
    """Check the laws of a registered environment on a few episodes.

    Equal seeds give equal episodes; T latents give the same completion at once and one by one; a batch gives
    what single environments give; all-zero latents give the anchor text's own completion; the frozen model
    stays as it was.

    Args:
        env_id: a registered id.
        episodes: how many episodes each law is checked on.
        seed: of questions, latents and sampled tokens.
        make_kwargs: for ``gymnasium.make``; ``latents_per_step`` is left out, as both extremes are compared.

    Raises:
        PluginError: a law is broken; the message names the law and the question.
    """
    make_kwargs.pop("latents_per_step", None)
    whole = _make_vec(env_id, episodes, make_kwargs)
    engine = whole.engine
    before = engine.decoder.fingerprint()
    width = engine.space.num_latents * engine.space.latent_dim
    actions = np.random.default_rng(seed).uniform(-1, 1, (episodes, width)).astype(np.float32)
    judge = _Judge(env_id, engine, actions)

    first = _vector_episode(whole, actions, seed)
    again = _vector_episode(whole, actions, seed)
    if not _equal(first, again):
        raise PluginError(f"{env_id}: two episodes with seed {seed} and the same latents differ")

    stepwise = _make_vec(env_id, episodes, {**make_kwargs, "latents_per_step": 1})
    parts = _vector_episode(stepwise, actions, seed)
    for row in range(episodes):
        judge.compare("step-by-step = one-step", first, row, _ids(parts.completions, row, parts.several))

    single = cast(LatentEnv, gymnasium.make(env_id, disable_env_checker=True, **make_kwargs).unwrapped)
    for row in range(episodes):
        judge.compare("single = batched", first, row, _single_ids(single, actions[row], seed + row))

    zeros = np.zeros_like(actions)
    rest = _vector_episode(whole, zeros, seed)
    judge_zero = _Judge(env_id, engine, zeros)
    plain = _plain_anchor(engine, [item.question for item in rest.items])
    silent = rest if engine.temperature == 0 else _greedily(engine, rest, torch.as_tensor(zeros))
    for row in range(episodes):
        judge_zero.compare("zero latents = anchor text", silent, row, _ids(plain, row), greedy=True)

    if engine.decoder.fingerprint() != before:
        raise PluginError(f"{env_id}: the frozen model's weights have changed")
    return LatentEnvReport(env_id, judge.count + judge_zero.count, judge.ties + judge_zero.ties)


class _Judge:
    """Compares completions token by token and counts near-ties."""

    def __init__(self, env_id: str, engine: Engine, actions: Floats) -> None:
        self.env_id, self.engine = env_id, engine
        self.latents = torch.as_tensor(actions, device=engine.decoder.device)
        self.count = self.ties = 0

    def compare(self, law: str, outcome: Outcome, row: int, got: list[int], greedy: bool = False) -> None:
        """Hold row ``row`` of an outcome against other token ids for the same question and latents."""
        expected = _ids(outcome.completions, row, outcome.several)
        self.count += 1
        if expected == got:
            return
        tie = greedy or self.engine.temperature == 0
        if tie and self._gap(outcome, row, expected, got) < NEAR_TIE:
            self.ties += 1
            return
        question = outcome.items[row].question
        raise PluginError(f"{self.env_id}: {law}: expected tokens {expected}, got {got} on {question!r}")

    @torch.no_grad()
    def _gap(self, outcome: Outcome, row: int, one: list[int], other: list[int]) -> float:
        """Difference of the two tokens' logits where the completions part; infinite if they never do."""
        same = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), None)
        if same is None:
            return float("inf")
        device = self.latents.device
        ids = torch.tensor([[*one[: same + 1]], [*other[: same + 1]]], device=device)
        last = torch.zeros(ids.shape, device=device)
        last[:, -1] = 1.0
        rows = outcome.rows_N[[row, row]]
        ready = _injected(self.engine, outcome.cache.select(rows), self.latents[[row, row]])
        a, b = self.engine.decoder.log_prob(ready, ids, last).tolist()
        return abs(float(a) - float(b))


def _make_vec(env_id: str, num_envs: int, kwargs: dict[str, Any]) -> LatentVectorEnv:
    return cast(LatentVectorEnv, gymnasium.make_vec(env_id, num_envs=num_envs, **kwargs).unwrapped)


def _vector_episode(env: LatentVectorEnv, actions: Floats, seed: int) -> Outcome:
    """One seeded episode in every sub-environment, the chain cut into the environment's actions."""
    env.reset(seed=seed)
    steps = np.split(actions, env.engine.space.num_latents // env.engine.latents_per_step, axis=1)
    for number, action in enumerate(steps, 1):
        observation, rewards, terminated, _, _ = env.step(action)
        last = number == len(steps)
        if not env.observation_space.contains(observation):
            raise PluginError("an observation lies outside the observation space")
        if bool(np.all(terminated)) != last or (not last and bool(np.any(rewards))):
            raise PluginError(f"expected {len(steps)} steps with the reward at the end; step {number} differs")
    if env.finished is None:
        raise PluginError("no finished episode after the last latent")
    return env.finished


def _single_ids(env: LatentEnv, action: NDArray[Any], seed: int) -> list[int]:
    """Tokens of a single environment's episode, found again from its own prompt."""
    env.reset(seed=seed)
    state = env.np_random.bit_generator.state
    info = env.step(action)[4]
    engine = env.engine
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    latents = torch.as_tensor(action[None], device=engine.decoder.device)
    ready = _injected(engine, engine.cache, latents)
    done = engine.decode(ready, [generator])
    if done.texts[0] != info["completion"]:
        raise PluginError(f"the single environment reports {info['completion']!r} for {done.texts[0]!r}")
    return _ids(done, 0, engine.decodes_per_chain)


def _plain_anchor(engine: Engine, questions: list[str]) -> Completions:
    """Greedy completions of the plain prompt with the anchor text."""
    text = [*engine.space.anchor_ids, *engine.space.pending_ids]
    cache = engine.decoder.prefill(questions, text[:-1], text[-1:], 0)
    return engine.decoder.decode(cache, engine.max_new_tokens)


def _greedily(engine: Engine, outcome: Outcome, actions: Tensor) -> Outcome:
    """The same episodes decoded greedily."""
    ready = _injected(engine, outcome.cache.select(outcome.rows_N), actions.to(engine.decoder.device))
    done = engine.decoder.decode(ready, engine.max_new_tokens)
    samples, rewards_N1 = engine.judge(outcome.items, done), outcome.rewards_NM[:, :1]
    return Outcome(outcome.items, samples, rewards_N1, done, outcome.cache, outcome.rows_N)


@torch.no_grad()
def _injected(engine: Engine, cache: PromptCache, flat: Tensor) -> PromptCache:
    return engine.space.inject(cache, flat.view(len(flat), engine.space.num_latents, engine.space.latent_dim))


def _ids(completions: Completions, row: int, several: int = 1) -> list[int]:
    """Tokens of an episode, those of all its completions one after another."""
    rows = slice(row * several, (row + 1) * several)
    return [int(i) for i in completions.ids_NL[rows][completions.mask_NL[rows].bool()]]


def _equal(one: Outcome, other: Outcome) -> bool:
    same = one.items == other.items and one.samples == other.samples
    tokens = torch.equal(one.completions.ids_NL, other.completions.ids_NL)
    return same and tokens and bool(np.array_equal(one.rewards_NM, other.rewards_NM))
