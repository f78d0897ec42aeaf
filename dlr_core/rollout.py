"""Collecting one step's chains: sample G, choose K, decode them in the environment, hand over the outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dlr_core.advantages import dead_groups
from dlr_core.batch import Decodes, MainModel, StepBatch
from dlr_core.cost import Ledger
from dlr_core.diversity import diversity
from dlr_core.errors import DLRError, PluginError, kind_and_line
from dlr_core.everyone import joined_batch
from dlr_core.frozen import Frozen
from dlr_core.protocols import Assistant, ChainBatch, Scorer
from dlr_core.ranks import Ranks
from dlr_core.records import Completions, Sample
from dlr_core.selection import inclusion_probabilities, systematic_sample
from dlr_core.splits import normalise


class LearnerEnv(Protocol):
    """What learning needs of a vector environment: :class:`dlr_envs.vector.LatentVectorEnv` has it."""

    engine: Any
    finished: Any
    groups: list[Any]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        """Start on new questions."""

    def step(self, actions: Any) -> Any:
        """Decode one chain per sub-environment; afterwards the environment is on the next questions."""

    def question_states(self) -> tuple[Tensor, Tensor]:
        """States (B, S, H) and mask of the current questions."""

    def log_prob(self, actions_NTD: Tensor, completion_ids_NL: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p_M of completions that the last step ended, each under its own latents."""

    def gold_log_prob(self, actions_NTD: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p_M of the current questions' gold answers."""

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint."""


@dataclass(frozen=True)
class Rollout:
    """A batch ready to learn from, and what was decoded (row (b·K + k)·M + m; empty for gold likelihood)."""

    batch: StepBatch
    samples: list[Sample]


class Collector:
    """Samples chains from the assistant and decodes the chosen ones."""

    def __init__(
        self, env: LearnerEnv, assistant: Assistant, scorer: Scorer, *, samples: int, decodes: int,
        generator: torch.Generator, ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.env, self.assistant, self.scorer = env, assistant, scorer
        self.ranks = ranks or Ranks()
        self.samples, self.decodes, self.generator = samples, decodes, generator
        decoder = env.engine.decoder
        self.space, self.device = env.engine.space, decoder.device
        self.ledger = Ledger(decoder.usage, decoder.flops_per_token)
        self.frozen = Frozen(decoder)

    def noise(self, rows: int) -> Tensor:
        """Standard normal noise (rows, T, D), always drawn on the CPU so that devices agree."""
        shape = (rows, self.space.num_latents, self.space.latent_dim)
        return torch.randn(shape, generator=self.generator).to(self.device)

    def sample(self, states_BSH: Tensor, mask_BS: Tensor, noise_NTD: Tensor, *, keeping: bool = True) -> ChainBatch:
        """Chains from the assistant, checked.

        Args:
            states_BSH: the main model's, of every question.
            mask_BS: 1 where there is a state.
            noise_NTD: standard normal.
            keeping: whether what gradients need is kept until they flow back; else it is computed again then.

        Raises:
            PluginError: it raises, or they have a wrong shape, are not finite, or lie outside the box.
        """
        who = f"assistant {type(self.assistant).__name__}"
        back, given = torch.is_grad_enabled(), (states_BSH, mask_BS, noise_NTD)
        with self.frozen.watch(who), self.ledger.flops("assistant", backward=back, again=not keeping):
            try:
                if keeping or not back:
                    chains = self.assistant.sample(*given)
                else:
                    chains = checkpoint(self.assistant.sample, *given, use_reentrant=False)
                flaw = _flaw(chains, tuple(noise_NTD.shape))
            except DLRError:
                raise
            except Exception as error:  # a stranger's module may raise anything
                raise PluginError(f"{who} raised {kind_and_line(error)}") from error
        if flaw:
            raise PluginError(f"{who}: {flaw}")
        return chains

    def collect(self, *, gold: bool) -> Rollout:
        """One rollout; with ``gold`` nothing is decoded and only gold likelihoods can be asked for."""
        states_BSH, mask_BS = self.env.question_states()
        questions = [normalise(item.question) for item in self.env.groups]
        rows = len(states_BSH)
        everyones = rows * self.ranks.size
        noise_NTD = self.noise(everyones * self.samples)[self.ranks.share(everyones * self.samples)]
        chains = self.sample(states_BSH, mask_BS, noise_NTD)
        main = self._main_model()
        latents_BGTD = chains.actions_NTD.detach().unflatten(0, (rows, -1))
        predictions_BG = self._predict(states_BSH, mask_BS, latents_BGTD)
        inclusion_BG = inclusion_probabilities(predictions_BG, self.decodes)
        chosen_BK = torch.arange(self.decodes, device=self.device).expand(rows, -1)
        if self.decodes < self.samples:
            chosen_BK = systematic_sample(self.ranks.rows(inclusion_BG), self.decodes, self.generator)
            chosen_BK = chosen_BK[self.ranks.share(everyones)]
        samples: list[Sample] = []
        rewards_BK = torch.zeros(chosen_BK.shape, device=self.device)
        correct_BK, repeat_BK = torch.zeros_like(rewards_BK), torch.zeros_like(rewards_BK, dtype=torch.bool)
        each: Decodes | None = None
        if not gold:
            kept = latents_BGTD.gather(1, chosen_BK[..., None, None].expand(-1, -1, *latents_BGTD.shape[2:]))
            with self.frozen.watch(self.verifying):
                self.env.step(self.flat(kept.flatten(0, 1)))
            done = self.env.finished
            samples = done.samples
            rewards_BK = torch.as_tensor(done.rewards_N, device=self.device).view(chosen_BK.shape)
            each = self._each(done, (*chosen_BK.shape, len(samples) // chosen_BK.numel()))
            correct_BK, repeat_BK = each.correct_BKM.mean(-1), each.repeat_BKM.all(-1)

        def policy_log_prob_BGT() -> Tensor:
            with self.ledger.flops("assistant", backward=torch.is_grad_enabled()):
                policy = self.assistant.evaluate(states_BSH, mask_BS, chains.pre_NTD.detach())
                grouped: Tensor = policy.log_prob(chains.pre_NTD.detach()).unflatten(0, (rows, -1))
            return grouped

        batch = StepBatch(
            chains=chains,
            states_BSH=states_BSH,
            mask_BS=mask_BS,
            questions=questions,
            chosen_BK=chosen_BK,
            inclusion_BG=inclusion_BG,
            predictions_BG=predictions_BG,
            rewards_BK=rewards_BK,
            correct_BK=correct_BK,
            repeat_BK=repeat_BK,
            policy_log_prob_BGT=policy_log_prob_BGT,
            old_log_prob_BGT=chains.policy.log_prob(chains.pre_NTD).detach().unflatten(0, (rows, -1)),
            weighted_completion_log_prob=self._weighted_completion,
            weighted_gold_log_prob=self._weighted_gold,
            main=main,
            decodes=each if each is not None and each.rewards_BKM.shape[-1] > 1 else None,
        )
        return Rollout(batch, samples)

    def joined(self, rollout: Rollout) -> Rollout:
        """The same step's rollout over all ranks: :func:`dlr_core.everyone.joined_batch`."""
        return Rollout(joined_batch(self.ranks, rollout.batch), self.ranks.join(rollout.samples))

    def _each(self, done: Any, shape: tuple[int, int, int]) -> Decodes:
        """Outcomes of the single completions, in shape (B, K, M)."""
        rewards = done.rewards_N if shape[-1] == 1 else done.rewards_NM
        texts = [sample.completion for sample in done.samples]
        return Decodes(
            torch.as_tensor(rewards, device=self.device).view(shape),
            correctness(done.samples).to(self.device).view(shape),
            repeats(texts, shape[1] * shape[2]).to(self.device).view(shape),
        )

    def _main_model(self) -> MainModel:
        """The frozen model on the questions that the environment is on now."""
        engine, items, decodes = self.env.engine, self.env.groups, self.decodes

        def verify(rows_N: Sequence[int], completions: Completions) -> Tensor:
            return correctness(engine.judge([items[row] for row in rows_N], completions)).to(self.device)

        return MainModel(
            engine.decoder, engine.space, [item.question for item in items], engine.cache, engine.rows_N[::decodes],
            engine.max_new_tokens, verify, self.generator,
        )  # fmt: skip

    @torch.no_grad()
    def _predict(self, states_BSH: Tensor, mask_BS: Tensor, latents_BGTD: Tensor) -> Tensor:
        """What the scorer expects of every chain; one that needs gold is given p_M(gold answer) instead of states."""
        scorer: Any = self.scorer
        who, shape = f"scorer {type(scorer).__name__}", tuple(latents_BGTD.shape[:2])
        if not getattr(scorer, "needs_gold", False):
            with self.frozen.watch(who), self.ledger.flops("scorer"):
                predicted = self.scorer.predict(states_BSH, mask_BS, latents_BGTD)
            return _finite(predicted, shape, who)
        leaders = torch.arange(len(latents_BGTD), device=self.device) * self.decodes
        log_prob_N = self.env.gold_log_prob(latents_BGTD.flatten(0, 1), leaders.repeat_interleave(self.samples))
        return _finite(scorer.predict_from_gold(log_prob_N.view(shape)), shape, who)

    @property
    def verifying(self) -> str:
        """The parts that have a hand in decoding and judging chains, for a person to read."""
        engine = self.env.engine
        names = [type(part).__name__ for part in (engine.space, engine.task, engine.reward)]
        return "space {}, task {} or reward {}".format(*names)

    def refresh(self, batch: StepBatch) -> StepBatch:
        """The same noise through the assistant as it is now: a new graph for another update on the same outcome."""
        return replace(batch, chains=self.sample(batch.states_BSH, batch.mask_BS, batch.chains.noise_NTD))

    def flat(self, latents_NTD: Tensor) -> Any:
        """Latents as the environment takes them: one flat action per row."""
        return latents_NTD.flatten(1).float().cpu().numpy()

    def _weighted_completion(self, latents_NTD: Tensor, weights: Tensor) -> Tensor:
        done = self.env.finished.completions
        several = len(done.mask_NL) // len(latents_NTD)
        weights_N = (weights if weights.dim() == 3 else weights[..., None].expand(-1, -1, several)).flatten()
        rows = weights_N.nonzero()[:, 0]
        if not len(rows):
            return latents_NTD.sum() * 0.0
        length = int(done.mask_NL[rows].sum(1).max())
        log_prob_M = self.env.log_prob(latents_NTD[rows // several], done.ids_NL[rows][:, :length], rows)
        return (log_prob_M * weights_N[rows]).sum()

    def _weighted_gold(self, latents_NTD: Tensor, weights_BK: Tensor) -> Tensor:
        return (self.env.gold_log_prob(latents_NTD) * weights_BK.flatten()).sum()


def repeats(texts: list[str], group: int) -> Tensor:
    """bool (B, K): whether an earlier chain of the same group has the same text."""
    flags: list[bool] = []
    for start in range(0, len(texts), group):
        seen: set[str] = set()
        for text in texts[start : start + group]:
            flags.append(text in seen)
            seen.add(text)
    return torch.tensor(flags).view(-1, group)


def correctness(samples: list[Sample]) -> Tensor:
    """float (N,): 1.0 where the answer is right *and* keeps the format."""
    return torch.tensor([float(s.fully_right) * s.format for s in samples])


def distinct_answers(samples: list[Sample], group: int) -> float:
    """Distinct parsed answers among each ``group`` samples in a row, mean over the groups."""
    answers = [sample.parsed for sample in samples]
    counts = [len({*answers[i : i + group]} - {None}) for i in range(0, len(answers), group)]
    return sum(counts) / len(counts)


def outcome_metrics(rollout: Rollout) -> dict[str, Any]:
    """What a step's decoded chains were like: rewards, components, variety, cost."""
    samples, batch = rollout.samples, rollout.batch
    rewards_BKM = batch.each.rewards_BKM
    group = rewards_BKM[0].numel()
    count = float(len(samples))
    spread = {"decode_spread": float(rewards_BKM.std(-1).mean())} if rewards_BKM.shape[-1] > 1 else {}
    return {
        "reward": float(batch.rewards_BK.mean()),
        "correct": sum(s.correct for s in samples) / count,
        "format": sum(s.format for s in samples) / count,
        "best_of_k": float(torch.tensor([s.correct for s in samples]).view(-1, group).amax(1).mean()),
        "distinct_answers": distinct_answers(samples, group),
        **spread,
        **diversity(batch.chains.actions_NTD.detach().unflatten(0, (len(batch.questions), -1))),
        "dead_groups": int(dead_groups(batch.rewards_BK).sum()),
        "decodes": len(samples),
        "tokens": sum(s.tokens for s in samples),
    }


def _flaw(chains: ChainBatch, shape: tuple[int, ...]) -> str | None:
    """What is wrong with an assistant's chains; None if nothing is."""
    pre_NTD = chains.pre_NTD
    strange = 0 if pre_NTD.shape != shape else int((~torch.isfinite(pre_NTD)).sum())
    if pre_NTD.shape != shape or strange:
        count = f", {strange} of them not finite" if strange else ""
        return f"expected finite latents of shape {shape}, got shape {tuple(pre_NTD.shape)}{count}"
    largest = float(chains.actions_NTD.detach().abs().max())
    return None if largest <= 1 else f"expected actions in [-1, 1], got one of size {largest:.3g}"


def _finite(predicted: Tensor, shape: tuple[int, ...], who: str) -> Tensor:
    """A scorer's predictions, checked: one that is not finite would spoil which chains are chosen."""
    if predicted.shape != shape or not bool(torch.isfinite(predicted).all()):
        raise PluginError(f"{who}: expected finite predictions of shape {shape}, got shape {tuple(predicted.shape)}")
    return predicted
