"""The algorithm: roll out, estimate the gradient, replay successes, update. The main model is never touched."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlr_core.batch import StepBatch
from dlr_core.calibration import ScorerMonitor
from dlr_core.config import RunConfig
from dlr_core.density import Policy, TanhGaussian
from dlr_core.everyone import joined_account, joined_row, joined_state, own_state
from dlr_core.heap import give_back
from dlr_core.lockstep import Report, drawn, exchange, process_drawn
from dlr_core.protocols import Assistant, Scorer
from dlr_core.rank_rules import share_parts
from dlr_core.ranks import Ranks
from dlr_core.rehearsal import Rehearsal
from dlr_core.rollout import Collector, LearnerEnv, distinct_answers, outcome_metrics
from dlr_core.schedule import CLOCKS, Schedule
from dlr_core.updates import Updates

Metrics = dict[str, Any]


class Trainer:
    """Trains an assistant, and a joint chart, in an environment of B·K sub-environments."""

    def __init__(
        self,
        config: RunConfig,
        env: LearnerEnv,
        *,
        assistant: Assistant,
        estimator: Any,
        contrastive: nn.Module,
        scorer: Scorer,
        warm_estimator: Any = None,
        openings: Sequence[str] = ("",),
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.env = config, env
        self.ranks = ranks or Ranks()
        self.estimator, self.warm_estimator = estimator, warm_estimator
        self.contrastive, self.scorer = contrastive, scorer
        self.assistant: Any = assistant
        self.space = env.engine.space
        self.generator = torch.Generator().manual_seed(config.seed)
        self.collector = Collector(
            env, assistant, scorer,
            samples=config.batch.samples, decodes=config.decodes, generator=self.generator,
            ranks=self.ranks,
        )  # fmt: skip
        self.ledger = self.collector.ledger
        self.rehearsal = Rehearsal(config.replay, self.collector, openings)
        self.monitor = ScorerMonitor()
        self.clock = CLOCKS[config.clock]
        self.step_number, self.seconds = 0, 0.0
        self.recorded: Sequence[float] = ()
        """Progress before each step of the run that this one makes again."""
        modules: dict[str, Any] = {"assistant": assistant, "contrastive": contrastive}
        named = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
        groups: list[dict[str, Any]] = [{"params": list(named.values()), "base_lr": config.optim.lr}]
        if chart := self.space.trainable():
            groups.append({"params": chart, "base_lr": config.optim.chart_lr})
            named |= {f"chart.{number}": parameter for number, parameter in enumerate(chart)}
        self.optimizer = torch.optim.Adam(groups, lr=config.optim.lr, betas=(0.9, 0.98))
        self.parameters: list[nn.Parameter] = list(named.values())
        self.frozen = self.collector.frozen
        self.frozen.refuse_parameters(self.parameters, "the assistant, the contrastive objective or the space")
        share_parts(self.ranks, estimator=estimator, reward=env.engine.reward, scorer=scorer)
        self.updates = Updates(self.optimizer, named, config.optim.clip, config.optim.patience, self.ranks)
        self.prior = self._prior()
        self.first_row = self.ranks.share(config.batch.questions).start * config.decodes
        """Number of this rank's first sub-environment among those of all ranks."""
        self._env_state: dict[str, Any] | None = None
        env.reset(seed=config.seed + self.first_row, options={"group_size": config.decodes})

    def _prior(self) -> TanhGaussian:
        """N(0, σ₀²), σ₀ being the untrained policy's scale."""
        with torch.no_grad():
            states_BSH, mask_BS = self._blank_question()
            log_std = self.collector.sample(states_BSH, mask_BS, self.collector.noise(1)).policy.log_std[0].clone()
        return TanhGaussian(torch.zeros_like(log_std), log_std)

    def _blank_question(self) -> tuple[Tensor, Tensor]:
        decoder = self.env.engine.decoder
        states = torch.zeros(1, 1, decoder.hidden_size, device=decoder.device)
        return states, torch.ones(1, 1, dtype=torch.long, device=decoder.device)

    # ---- the run -------------------------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int | None:
        """Warm-start and reinforcement steps together; None if only time limits the run."""
        return None if self.config.steps is None else self.config.steps + self.config.warmstart.steps

    @property
    def progress(self) -> float:
        """Share of the run that is done, by the nearer limit; as recorded, if it was."""
        if self.step_number < len(self.recorded):
            return self.recorded[self.step_number]
        return self._schedule.progress(self.step_number, self.seconds)

    def done(self) -> bool:
        """Whether a limit has been reached."""
        return self._schedule.over(self.step_number, self.seconds)

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.config.optim, self.total_steps, self.config.minutes)

    def run(self) -> Iterator[Metrics]:
        """Train until done, yielding one step's metrics at a time."""
        if self.ranks.size > 1:
            self._env_state = joined_state(self.ranks.gather(self.env.state()))
        while not self.done():
            yield self.step()

    def step(self) -> Metrics:
        """One step: a rollout (or several, where dead groups are resampled) and its updates."""
        began, spent = time.perf_counter(), self.clock()
        before = process_drawn() if self.ranks.size > 1 else ""
        self.ledger.begin()
        self.updates.begin()
        progress = self.progress
        rate = self._schedule.rate(self.step_number, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        warm = self.step_number < self.config.warmstart.steps
        estimator = self.warm_estimator if warm else self.estimator
        metrics = self._learn(estimator) if estimator.needs_completions else self._learn_from_gold(estimator)
        probe = self.config.probe.every
        if probe and estimator.needs_completions and self.step_number % probe == 0:
            metrics["distinct_answers_tokens"] = self.token_variety()
        self.updates.end()
        if self.updates.skipped:
            metrics["skipped_updates"] = self.updates.skipped
        self.step_number += 1
        self.seconds += self.clock() - spent
        metrics, account = {key: _number(value) for key, value in metrics.items()}, self.ledger.close()
        if self.ranks.size > 1:
            metrics, account = self._together(metrics, account, before)
        return {
            "step": self.step_number,
            "phase": "warmstart" if warm else "rl",
            **metrics,
            **account,
            "progress": progress,
            "seconds": time.perf_counter() - began,
        }

    # ---- several ranks -------------------------------------------------------------------------------------------

    def _together(self, metrics: Metrics, account: Metrics, before: str) -> tuple[Metrics, Metrics]:
        """The step's metrics and account over all ranks, which go on with one clock.

        Args:
            metrics: this rank's.
            account: likewise.
            before: where the process's own generators were before the step.
        """
        trained = [*self.parameters, *getattr(self.scorer, "parameters", tuple)()]
        report = Report(
            {**metrics, "reduced_bytes": self.ranks.reduced_bytes, "gathered_bytes": self.ranks.gathered_bytes},
            account,
            self.seconds,
            self.env.state(),
            float(nn.utils.get_total_norm([parameter.detach() for parameter in trained])),
            drawn(self.generator),
            process_drawn() != before,
        )
        self.ranks.reduced_bytes = self.ranks.gathered_bytes = 0
        reports = exchange(self.ranks, report)
        self.seconds = reports[0].seconds
        self._env_state = joined_state([other.env for other in reports])
        return joined_row([other.metrics for other in reports]), joined_account([other.account for other in reports])

    def env_state(self) -> dict[str, Any]:
        """State of the whole environment, every rank's part of it, as it was after the last step."""
        return self.env.state() if self._env_state is None else self._env_state

    def restore_env(self, state: Mapping[str, Any]) -> None:
        """From :meth:`env_state`, of however many ranks."""
        self.env.restore(own_state(self.ranks, state))

    # ---- updates -------------------------------------------------------------------------------------------------

    def _learn_from_gold(self, estimator: Any) -> Metrics:
        with self.ledger.phase("update"):
            rollout = self.collector.collect(gold=True)
            with self.frozen.watch(f"estimator {type(estimator).__name__}"):
                loss, logs = estimator(rollout.batch)
            self.updates.backward(loss)
            norm = self.updates.apply()
        self.env.reset(options={"group_size": self.config.decodes})
        unseen = dict.fromkeys(("reward", "correct", "format"))
        return {**unseen, "decodes": 0, "tokens": 0, "loss": float(loss.detach()), "grad_norm": norm, **logs}

    def _learn(self, estimator: Any) -> Metrics:
        """Roll out as often as an update takes, and on until enough groups are alive; update, remember successes."""
        gathered: list[Metrics] = []
        questions, alive = self.config.batch.questions, 0
        least, more = self.config.batch.accumulate, self.config.batch.resample_dead
        while len(gathered) < least or (len(gathered) < least + more and alive < least * questions):
            with self.ledger.phase("rollout"):
                rollout = self.collector.collect(gold=False)
            everyone = self.collector.joined(rollout)
            metrics = outcome_metrics(everyone)
            alive += questions - metrics["dead_groups"]
            with self.ledger.phase("update"):
                logs = self._accumulate(estimator, rollout.batch, everyone.batch)
            gathered.append({**metrics, **logs})
            done = self.env.finished
            asked = done.items[:: self.config.decodes]
            right_BK, rate_B = everyone.batch.each.correct_BKM.flatten(1), everyone.batch.success_rate_B
            self.rehearsal.take(asked, done.cache, done.completions, right_BK, rate_B)
        self._scale_gradients(questions / alive if more and alive else 1 / least)
        with self.ledger.phase("search"):
            give_back()
            search_logs = self.rehearsal.search()
        with self.ledger.phase("replay"):
            give_back()
            replay_logs = self.rehearsal.replay(questions, self.updates.backward)
        norm = self.updates.apply()
        for _ in range(self.config.replay.updates - 1):
            with self.ledger.phase("replay"):
                if self.rehearsal.replay(questions, self.updates.backward):
                    self.updates.apply()
        for _ in range(self.config.batch.epochs - 1):
            self.updates.backward(estimator(self.collector.refresh(rollout.batch))[0])
            self.updates.apply()
        return {**_combine(gathered), **search_logs, **replay_logs, **self.rehearsal.cache_logs(), "grad_norm": norm}

    def _scale_gradients(self, factor: float) -> None:
        if factor != 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def _accumulate(self, estimator: Any, batch: StepBatch, everyone: StepBatch) -> Metrics:
        """Gradients of one rollout's loss; the scorer learns from its outcome.

        Args:
            estimator: sees each question by itself.
            batch: this rank's questions.
            everyone: all ranks', for what holds them against each other.
        """
        with self.frozen.watch(f"estimator {type(estimator).__name__}"):
            loss, logs = estimator(batch)
        with self.frozen.watch(f"contrastive objective {type(self.contrastive).__name__}"):
            contrast, contrast_logs = self.contrastive(everyone)
        penalty, policy_logs = self._regulariser(batch.chains.policy)
        total = loss + contrast + penalty
        self.updates.backward(total)
        latents_BGTD = batch.chains.actions_NTD.detach().unflatten(0, (len(batch.questions), -1))
        chosen = batch.chosen_BK[..., None, None].expand(-1, -1, *latents_BGTD.shape[2:])
        with self.frozen.watch(f"scorer {type(self.scorer).__name__}"), self.ledger.flops("scorer"):
            scorer_logs = self.scorer.update(
                batch.states_BSH, batch.mask_BS, latents_BGTD.gather(1, chosen), batch.rewards_BK
            )
        if not getattr(self.scorer, "decodes_all", False):
            predicted_BK = everyone.predictions_BG.gather(1, everyone.chosen_BK)
            outcome = (predicted_BK, everyone.rewards_BK, everyone.correct_BK, everyone.chosen_inclusion_BK)
            scorer_logs = {**scorer_logs, **self.monitor.add(*outcome)}
        return {"loss": float(total.detach()), **logs, **contrast_logs, **policy_logs, **scorer_logs}

    def _regulariser(self, policy: Policy) -> tuple[Tensor, Metrics]:
        """KL to the prior minus entropy, nats per latent coordinate, weighted."""
        width = self.space.latent_dim
        entropy, kl = policy.entropy().mean() / width, policy.kl(self.prior).mean() / width
        penalty = self.config.optim.kl * kl - self.config.optim.entropy * entropy
        logs = {"entropy": float(entropy.detach()), "kl": float(kl.detach())}
        return penalty, {**logs, "scale": float(policy.log_std.detach().exp().mean())}

    # ---- probes --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def token_variety(self) -> float:
        """Distinct parsed answers of K token samples (temperature 1) under *one* latent chain, mean over the questions.

        To be read beside ``distinct_answers``, which varies the latents; it draws from generators of its own.
        """
        engine = self.env.engine
        states_BSH, mask_BS = self.env.question_states()
        zero = torch.zeros(len(states_BSH), self.space.num_latents, self.space.latent_dim, device=states_BSH.device)
        mean_BTD = self.collector.sample(states_BSH, mask_BS, zero).actions_NTD
        count = self.config.decodes
        latents_NTD = mean_BTD.repeat_interleave(count, 0)
        _, judged = engine.complete(
            engine.items, engine.cache, engine.rows_N, latents_NTD,
            seed=self.config.seed + self.step_number, first=self.first_row,
        )  # fmt: skip
        return distinct_answers(judged.result(), count)


def _combine(gathered: list[Metrics]) -> Metrics:
    """One step's metrics from its rollouts: counts are added, everything else is averaged."""
    added = ("decodes", "tokens", "dead_groups")
    rows = {key: [m[key] for m in gathered if key in m] for key in gathered[-1]}
    return {key: sum(values) / (1 if key in added else len(values)) for key, values in rows.items()}


def _number(value: Any) -> Any:
    """A metric as JSON knows it: what is not finite is None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
