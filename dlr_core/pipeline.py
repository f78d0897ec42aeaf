"""Assembling a run from its settings, and answering questions with a trained one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlr_core.checkpoint import load_weights
from dlr_core.checkpoints import best_checkpoint, latest_checkpoint
from dlr_core.config import RunConfig, resolve
from dlr_core.errors import ConfigError, RunFolderError
from dlr_core.evaluate import Evaluator
from dlr_core.generators import seed_process
from dlr_core.host import PluginHost
from dlr_core.pretrained import Pretrained
from dlr_core.protocols import EnvSpec, Refiner
from dlr_core.questions import calibration_states
from dlr_core.rank_rules import for_ranks
from dlr_core.ranks import Ranks
from dlr_core.records import Item, PromptCache
from dlr_core.rundir import read_manifest
from dlr_core.saved import read_table
from dlr_core.task_settings import task_of
from dlr_core.trainer import Trainer

CARD = ("env", "split", "n", "rows", "paired")
"""What the card of a shared assistant says of its control table."""


def env_kwargs(config: RunConfig, host: PluginHost) -> dict[str, Any]:
    """Keyword arguments with which a run's environment is made."""
    spec: EnvSpec = host.create("env", config.env)
    task, options = task_of(config.env, {"name": config.task.name, **config.task.options}, host)
    space: Any = {"name": config.space.name, **config.space.options}
    return {
        "task": task,
        "task_kwargs": options,
        "decoder": {"name": config.decoder.name, **config.decoder.options},
        "space": space,
        "reward": {"name": config.reward.name, **config.reward.options},
        "temperature": config.decoder.temperature,
        "max_new_tokens": config.decoder.max_new_tokens or spec.max_new_tokens,
        "decodes_per_chain": config.decoder.decodes_per_chain,
        "judge_seconds": config.judge_seconds,
        "host": host,
    }


def make_engine(config: RunConfig, host: PluginHost) -> Any:
    """The engine of a run's environment: its task, main model, latent space and reward (DESIGN §4)."""
    return host.make_env(config.env, num_envs=1, **env_kwargs(config, host)).unwrapped.engine


def eval_sizes(config: RunConfig, host: PluginHost, asked: int | None = None) -> tuple[int, int]:
    """Questions of a control table, and training questions on which its best prompt is chosen.

    Args:
        config: a run's settings.
        host: where its environment is registered.
        asked: number that was asked for; else the settings', else the environment's own.
    """
    own: EnvSpec = host.create("env", config.env)
    chosen = config.eval.questions if asked is None else asked
    questions = own.eval_questions if chosen is None else chosen
    return questions, min(config.eval.prompt_questions, questions)


def build_trainer(config: RunConfig, host: PluginHost, ranks: Ranks | None = None) -> Trainer:
    """Every part of a run, made from its settings and seeded; of several ranks, this one's.

    Raises:
        ConfigError: settings that do not go together, or not with so many ranks.
    """
    ranks = ranks or Ranks()
    config = for_ranks(config, host, ranks.size)
    seed_process(config.seed)
    num_envs = config.batch.questions // ranks.size * config.decodes
    env = host.make_env(config.env, num_envs=num_envs, **env_kwargs(config, host))
    space = env.engine.space
    shape = {
        "hidden_size": env.engine.decoder.hidden_size,
        "num_latents": space.num_latents,
        "latent_dim": space.latent_dim,
    }
    device = env.engine.decoder.device

    def part(kind: str, **context: Any) -> Any:
        chosen = getattr(config, kind)
        made = host.create(kind, chosen.name, chosen.options, **context)
        return made.to(device) if isinstance(made, torch.nn.Module) else made

    estimator, assistant = part("estimator"), part("assistant", **shape)
    if getattr(assistant, "observes", False):
        raise ConfigError(
            f"assistant {config.assistant.name!r} was trained elsewhere: it can be evaluated, not trained"
        )
    if hasattr(assistant, "calibrate"):
        assistant.calibrate(*calibration_states(env.engine))
    if config.init_from:
        load_weights({"assistant": assistant, "space": space}, latest_checkpoint(Path(config.init_from)))
    if space.trainable() and config.estimator.name == "score":
        raise ConfigError("estimator 'score' cannot train a joint chart: set space.chart to random or principal")
    spec: EnvSpec = host.create("env", config.env)
    return Trainer(
        config,
        env,
        assistant=assistant,
        estimator=estimator,
        contrastive=part("contrastive", **shape),
        scorer=part("scorer", **shape),
        warm_estimator=host.create("estimator", "likelihood") if config.warmstart.steps else None,
        openings=config.replay.openings or spec.openings,
        ranks=ranks,
    )


@dataclass
class DLRPipeline(Pretrained):
    """A trained run, ready to answer: ``DLRPipeline.from_run("runs/main")("State … 12 + 34 =")``.

    ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` share it without the run (:mod:`dlr_core.pretrained`).
    """

    config: RunConfig
    host: PluginHost
    engine: Any
    assistant: Any
    table: dict[str, Any] | None = None
    """The run's control table (``eval.json``) without its questions, for the card."""

    @property
    def task(self) -> str | None:
        """Name of the task it is on."""
        spec: EnvSpec = self.host.create("env", self.config.env)
        return self.config.task.name or spec.task

    @classmethod
    def from_run(
        cls, run: str | Path, *, host: PluginHost | None = None, env: str | None = None, best: bool = False
    ) -> "DLRPipeline":
        """Load a run's newest checkpoint.

        Args:
            run: run folder.
            host: every component; all that are installed if None.
            env: another environment to put it on.
            best: the checkpoint before which the mean reward was highest, rather than the newest.

        Raises:
            RunFolderError: the folder holds no run, or a damaged one.
        """
        folder, host = Path(run), host or PluginHost.from_entry_points()
        manifest = read_manifest(folder)
        if "baseline" in manifest:
            raise RunFolderError(f"{folder} holds a baseline, not a run: dlr eval RUN --baseline {folder}")
        saved = {**manifest["config"], "loggers": ()}  # nothing is logged, and they may be gone
        made = cls.assemble({**saved, "env": env, "task": {}} if env and env != saved["env"] else saved, host=host)
        chosen = best_checkpoint(folder) if best else latest_checkpoint(folder)
        load_weights({"assistant": made.assistant, "space": made.engine.space}, chosen)
        table = read_table(folder)
        made.table = None if table is None else {key: table[key] for key in CARD if key in table}
        return made

    @classmethod
    def assemble(cls, settings: Mapping[str, Any], *, host: PluginHost | None = None) -> "DLRPipeline":
        """A pipeline of these settings, its assistant and chart as they are before training."""
        host = host or PluginHost.from_entry_points()
        config = resolve(settings, host)
        engine = make_engine(config, host)
        space = engine.space
        assistant = host.create(
            "assistant", config.assistant.name, config.assistant.options,
            hidden_size=engine.decoder.hidden_size, num_latents=space.num_latents, latent_dim=space.latent_dim,
        ).to(engine.decoder.device)  # fmt: skip
        return cls(config, host, engine, assistant.eval())

    def __call__(self, question: str) -> str:
        """The frozen model's greedy answer after the assistant's mean chain for this question."""
        return self._text(self.engine.space.inject(self.engine.prefill([question]), self._chain(question)))

    @torch.no_grad()
    def explain(self, question: str, refiner: Refiner | None = None) -> dict[str, Any]:
        """The same beside what the plain prompt and the anchor alone give, and what the latents look like.

        Args:
            question: any text.
            refiner: with one, also ``"refined"``: the completion after it has improved the latents.

        Returns:
            ``{"question", "plain", "anchor", "trained", "latent_rms", "nearest_tokens"}``: three completions, and of
            every latent its size and the vocabulary tokens whose effect lies closest.
        """
        engine, chain_1TD = self.engine, self._chain(question)
        cache = engine.prefill([question])
        found = {
            "question": question,
            "plain": self._text(engine.decoder.prefill([question], [], [], 0)),
            "anchor": self._text(engine.space.inject(cache, torch.zeros_like(chain_1TD))),
            "trained": self._text(engine.space.inject(cache, chain_1TD)),
            "latent_rms": [round(float(x), 4) for x in chain_1TD[0].square().mean(-1).sqrt()],
            "nearest_tokens": engine.space.nearest_tokens(chain_1TD[0]),
        }
        if refiner is not None:
            better, _ = Evaluator(engine).refined([Item(question, "", 0)], chain_1TD.cpu().numpy(), refiner)
            better_1TD = torch.as_tensor(better, device=chain_1TD.device)
            found["refined"] = self._text(engine.space.inject(cache, better_1TD))
        return found

    def _chain(self, question: str) -> torch.Tensor:
        """The assistant's mean chain (1, T, D)."""
        found = Evaluator(self.engine).latents([Item(question, "", 0)], self.assistant)
        return torch.as_tensor(found, device=self.engine.decoder.device)

    @torch.no_grad()
    def _text(self, ready: PromptCache) -> str:
        return str(self.engine.decoder.decode(ready, self.engine.max_new_tokens).texts[0])
