"""A run's settings: defaults, then a TOML file, then ``--set``; validated whole, every problem reported at once."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from dlr_core.assignments import COMPONENTS
from dlr_core.capabilities import missing
from dlr_core.errors import ConfigError, shown, unknown_name
from dlr_core.host import PluginHost, explain
from dlr_core.paths import is_folder
from dlr_core.settings import (
    BatchSettings,
    CheckpointSettings,
    Component,
    DecoderSettings,
    EvalSettings,
    OptimSettings,
    ProbeSettings,
    ReplaySettings,
    Section,
    TaskSettings,
    WarmstartSettings,
)
from dlr_core.task_settings import task_problems
from dlr_core.values import unusable

MOST_CHAINS = 2**20


class RunConfig(Section):
    """Everything that determines a run."""

    seed: int = Field(0, ge=0, description="Seed of everything random.")
    env: str = Field("dlr/ChainSum-v0", description="Environment id.")
    steps: int | None = Field(120, ge=0, description="Reinforcement-learning steps.")
    minutes: float | None = Field(10.0, gt=0, description="Limit on training time; whichever comes first ends the run.")
    clock: Literal["wall", "cpu"] = Field(
        "wall",
        description="What minutes are counted in: wall time, or this process's CPU time (all threads together): fair "
        "where runs share a machine.",
    )
    judge_seconds: float = Field(
        120.0, gt=0, description="Limit on one call of the task's verifier or of the reward; beyond it the run stops."
    )
    init_from: str | None = Field(
        None, description="Run folder whose newest assistant and chart this one starts from; the optimiser starts anew."
    )
    task: TaskSettings = TaskSettings(name=None)
    decoder: DecoderSettings = DecoderSettings()
    space: Component = Component(name="kv")
    assistant: Component = Component(name="small-gpt")
    reward: Component = Component(name="dual")
    contrastive: Component = Component(name="bidirectional")
    scorer: Component = Component(name="none")
    estimator: Component = Component(name="pathwise_greedy")
    loggers: tuple[Component, ...] = Field(
        (Component(name="tensorboard"),),
        description="What is told of the run step by step: names, or tables with a name and options.",
    )
    batch: BatchSettings = BatchSettings()
    optim: OptimSettings = OptimSettings()
    replay: ReplaySettings = ReplaySettings()
    warmstart: WarmstartSettings = WarmstartSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    probe: ProbeSettings = ProbeSettings()
    eval: EvalSettings = EvalSettings()

    @property
    def decodes(self) -> int:
        """K."""
        return self.batch.decodes or self.batch.samples


FIRST_ROWS = ("plain", "anchor", "best_prompt", "random", "mean", "shuffled")


def control_rows(host: PluginHost) -> dict[str, str | None]:
    """Rows of the control table beside the trained one, in order, and the control that each is (None for prompts)."""
    found: dict[str, str | None] = dict.fromkeys(FIRST_ROWS)
    return found | {"anchor" if name == "zero" else name: name for name in host.names("control")}


def unknown_rows(names: Iterable[str], host: PluginHost) -> list[str]:
    """What is wrong with names of rows of the control table that there are not."""
    known = control_rows(host)
    return [unknown_name("row", name, known) for name in names if name not in known]


def resolve(values: Mapping[str, Any], host: PluginHost) -> RunConfig:
    """Validate settings and the options of every component they name; the result spells out every default.

    Raises:
        ConfigError: with every problem found.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"config: expected a table of settings, got {shown(values)}")
    tree = {
        key: {"name": value} if key in COMPONENTS and isinstance(value, str) else value for key, value in values.items()
    }
    for key in COMPONENTS:
        if isinstance(tree.get(key), Mapping):
            tree[key] = {"name": RunConfig.model_fields[key].default.name, **tree[key]}
    listed = tree.get("loggers", RunConfig.model_fields["loggers"].default)
    if isinstance(listed, list | tuple):
        listed = tree["loggers"] = [{"name": entry} if isinstance(entry, str) else entry for entry in listed]
    config: RunConfig | None = None
    rest = {key: value for key, value in tree.items() if key not in (*COMPONENTS, "loggers", "task")}
    problems = [f"config: {line}" for line in unusable(rest)]  # the others' options are looked at with them
    complete: dict[str, Any] = {}
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        problems.extend(explain(error, "config", RunConfig.model_fields))
    for key in COMPONENTS:
        try:
            chosen = Component.model_validate(tree.get(key, RunConfig.model_fields[key].default))
        except ValidationError:
            continue  # reported above
        if key == "space" and chosen.name not in host.names("space") and is_folder(chosen.name):
            continue  # a saved artefact brings its own options
        try:
            complete[key] = _complete(key, chosen, host)
        except ConfigError as error:
            problems.extend(error.problems)
    loggers = []
    for entry in listed if isinstance(listed, list) else ():
        try:
            loggers.append(_complete("logger", Component.model_validate(entry), host))
        except ConfigError as error:
            problems.extend(error.problems)
        except ValidationError:
            continue  # reported above
    complete["loggers"] = tuple(loggers)
    try:
        chosen_decoder = DecoderSettings.model_validate(tree.get("decoder", {}))
        if chosen_decoder.name in host.names("decoder"):  # else it is reported below
            complete["decoder"] = _backend(chosen_decoder, host)
    except ConfigError as error:
        problems.extend(error.problems)
    except ValidationError:
        pass  # reported above
    problems.extend(_named(tree, host))
    if config is not None:
        problems.extend(_contradictions(config, host))
        problems.extend(missing(config, {kind: complete[kind] for kind in COMPONENTS if kind in complete}, host))
    if config is None or problems:
        raise ConfigError(*problems)
    return config.model_copy(update=complete)


def _named(tree: Mapping[str, Any], host: PluginHost) -> list[str]:
    """What is wrong with names outside the components' tables, whatever else is wrong."""
    found: list[str] = []
    env, task = tree.get("env", RunConfig.model_fields["env"].default), tree.get("task", {})
    wanted = [("env", env)]
    for kind, section, key in (("decoder", "decoder", "name"), ("refiner", "eval", "refiner")):
        table = tree.get(section)
        wanted.append((kind, table.get(key) if isinstance(table, Mapping) else None))
    for kind, name in wanted:
        try:
            if isinstance(name, str):  # what is no name is reported where types are
                host.find(kind, name)
        except ConfigError as error:
            found.extend(error.problems)
    if isinstance(env, str) and isinstance(task, Mapping) and isinstance(task.get("name"), str | None):
        found.extend(task_problems(env, task, host))
    return found


def same_settings(saved: Mapping[str, Any], config: RunConfig, host: PluginHost) -> bool:
    """Whether settings that a manifest holds are these; what it was written without has its default."""
    try:
        return resolve(saved, host) == config
    except ConfigError:
        return False


def _complete(kind: str, chosen: Component, host: PluginHost) -> Component:
    """A component with every option spelt out."""
    options = host.options(kind, chosen.name, chosen.options)
    return Component(name=chosen.name, **(options.model_dump(mode="json") if options else {}))


def _backend(chosen: DecoderSettings, host: PluginHost) -> DecoderSettings:
    """The decoder's settings with every option of its backend spelt out.

    Raises:
        ConfigError: an option that it does not have, or a bad value.
    """
    own = getattr(getattr(host.find("decoder", chosen.name).factory, "Options", None), "model_fields", {})
    known = {*DecoderSettings.model_fields, *own}
    strange = sorted(set(chosen.model_extra or {}) - known)
    if strange:
        names = [f"decoder.{key}" for key in known]
        raise ConfigError(*(f"config: {unknown_name('option', f'decoder.{key}', names)}" for key in strange))
    options = host.options("decoder", chosen.name, {key: chosen.options[key] for key in own if key in chosen.options})
    if options is None:
        return chosen
    dumped = options.model_dump(mode="json", exclude=set(DecoderSettings.model_fields))
    return DecoderSettings.model_validate({**chosen.model_dump(), **dumped})


def greedy_repeats(setting: str, count: int, temperature: str) -> str:
    """Why several decodes per chain need a temperature."""
    return f"{setting}={count}: greedy decoding gives the same completion {count} times; set {temperature} above 0"


def _contradictions(config: RunConfig, host: PluginHost) -> list[str]:
    """Settings that are each valid but do not go together."""
    found = []
    if config.decodes > config.batch.samples:
        found.append(f"batch.decodes: expected at most batch.samples={config.batch.samples}, got {config.decodes}")
    if config.batch.questions * config.batch.samples > MOST_CHAINS:
        found.append(f"batch.questions × batch.samples: expected at most {MOST_CHAINS} chains in a step")
    if config.batch.accumulate > 1 and config.batch.epochs > 1:
        found.append("batch.accumulate: expected 1 where batch.epochs is above 1: earlier rollouts are gone by then")
    found += [f"eval.controls: {problem}" for problem in unknown_rows(config.eval.controls or (), host)]
    if config.steps is None and config.minutes is None:
        found.append("expected a limit: steps, minutes, or both")
    if config.decoder.decodes_per_chain > 1 and config.decoder.temperature == 0:
        found.append(
            greedy_repeats("decoder.decodes_per_chain", config.decoder.decodes_per_chain, "decoder.temperature")
        )
    if config.estimator.name in host.names("estimator"):
        factory = host.find("estimator", config.estimator.name).factory
        if getattr(factory, "needs_sampling", False) and config.decoder.temperature == 0:
            found.append(
                f"estimator {config.estimator.name!r} needs sampled completions: set decoder.temperature above 0, "
                "or use pathwise_greedy or score"
            )
    if config.scorer.name in host.names("scorer"):
        factory = host.find("scorer", config.scorer.name).factory
        if getattr(factory, "decodes_all", False) and config.decodes != config.batch.samples:
            found.append(f"scorer {config.scorer.name!r} decodes every chain: batch.decodes must equal batch.samples")
    return found
