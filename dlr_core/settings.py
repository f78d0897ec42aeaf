"""The tables of a run's settings, each with its defaults and what each setting means."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """A component by name; all further keys are its own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="Name in the registry (`dlr list`).")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class TaskSettings(BaseModel):
    """The environment's task: its name where the id leaves it open, and its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | None = Field(None, description="Task for dlr/Reasoning-v0, such as reasoning-gym:gcd.")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class DecoderSettings(BaseModel):
    """The frozen main model and how it decodes; all further keys are the backend's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("hf", description="Backend.")
    model: str = Field("smollm2-135m", description="smollm2-135m, a folder, a .gguf file, or a hub id.")
    device: str = Field("auto", description="auto, cpu, cuda, …")
    dtype: str = Field("auto", description="auto, float32, bfloat16, float16.")
    temperature: float = Field(
        0.0, ge=0, description="Of sampled tokens; 0 is greedy: variety comes from latents alone."
    )
    max_new_tokens: int | None = Field(None, ge=1, description="Limit on a completion; the environment's if not given.")
    decodes_per_chain: int = Field(
        1,
        ge=1,
        description="M, completions sampled under each chain that is decoded; the chain's reward is their mean.",
    )

    @property
    def options(self) -> dict[str, Any]:
        """What the backend is made with."""
        return {"model": self.model, "device": self.device, "dtype": self.dtype, **(self.model_extra or {})}


class BatchSettings(Section):
    """How much is sampled in a step."""

    questions: int = Field(4, ge=1, le=65536, description="B, questions in a step.")
    samples: int = Field(8, ge=1, le=65536, description="G, latent chains sampled per question.")
    decodes: int | None = Field(None, ge=1, description="K, chains decoded per question; all G if not given.")
    epochs: int = Field(1, ge=1, description="Updates on each step's chains.")
    accumulate: int = Field(1, ge=1, le=1024, description="Rollouts, of B questions each, that an update is made of.")
    resample_dead: int = Field(0, ge=0, le=1024, description="Extra rollouts a step may make to replace dead groups.")


class OptimSettings(Section):
    """The optimiser (Adam)."""

    lr: float = Field(1e-3, gt=0, description="Learning rate of the assistant.")
    chart_lr: float = Field(1e-3, gt=0, description="Learning rate of a joint chart.")
    warmup: int = Field(5, ge=0, description="Steps over which the rates rise from nothing.")
    decay: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the run (of the nearer limit), at its end, over which the rates fall to a tenth.",
    )
    clip: float = Field(1.0, gt=0, description="Bound on the gradient's norm.")
    patience: int = Field(
        5,
        ge=1,
        description="Steps in a row with updates left out, for want of a finite loss or gradient, that end the run.",
    )
    entropy: float = Field(0.0, ge=0, description="Weight of the policy's entropy (nats per latent coordinate).")
    kl: float = Field(0.0, ge=0, description="Weight of KL to the prior N(0, σ₀²) (nats per latent coordinate).")


class ReplaySettings(Section):
    """Replay of the run's own correct completions: the main model is frozen, so old successes stay valid."""

    chains: int = Field(32, ge=0, description="Remembered successes trained on in a step; 0 turns replay off.")
    at_once: int | None = Field(
        None,
        ge=1,
        description="Successes learned from at a time, and searches that are one batch, at most; all if not given. The "
        "same updates in less memory and more time.",
    )
    updates: int = Field(
        2, ge=1, description="Updates on remembered successes in a step; the first is also the rollout's."
    )
    weight: float = Field(1.0, ge=0, description="Weight of their mean negative log-likelihood in the loss.")
    capacity: int = Field(768, ge=1, description="Successes remembered.")
    noise: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the policy's noise in chains that are replayed or searched under: much of it drives the "
        "latents into saturation, where they can no longer tell questions apart.",
    )
    blur: float = Field(
        0.0,
        ge=0,
        description="Noise on the question's states in replay, as a share of each state's spread over the replayed "
        "questions, so that an answer cannot be remembered by accidents of its question's states.",
    )
    priority: float = Field(
        0.5, ge=0, le=1, description="Exponent of a success's loss in its chance to be replayed; 0 replays all alike."
    )
    search: int = Field(
        16,
        ge=0,
        le=65536,
        description="Training questions a step is searched on for successes to replay; 0: only what latent exploration "
        "finds is replayed.",
    )
    fresh: int = Field(8, ge=1, description="How many of them are new; the others were tried before, and are unsolved.")
    frontier: int = Field(256, ge=1, description="Unsolved questions kept.")
    cache_mb: float = Field(
        1152.0,
        ge=0,
        description="Megabytes of prompts of remembered and unsolved questions that are kept prefilled; others are "
        "prefilled again when they are drawn.",
    )
    cache_on: Literal["auto", "disk", "memory"] = Field(
        "auto",
        description="Where: in a temporary file (TMPDIR, else /var/tmp), or in memory; auto: disk on a CPU, memory "
        "elsewhere.",
    )
    tries: int = Field(
        8, ge=1, le=1024, description="Completions per searched question: different ones, sampled at temperature 1."
    )
    openings: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Texts that searched completions begin with, in turn; the environment's own if not given.",
    )

    @property
    def cache_bytes(self) -> int:
        """``cache_mb`` in bytes."""
        return int(self.cache_mb * 10**6)

    def cached_on_disk(self, device: str) -> bool:
        """Whether the prompts of a main model on this kind of device are kept in a file."""
        return self.cache_on == "disk" or (self.cache_on == "auto" and device == "cpu")


class WarmstartSettings(Section):
    """A supervised beginning. Off by default: with it a run has seen gold answers."""

    steps: int = Field(0, ge=0, description="Steps of gold likelihood before reinforcement learning.")


class CheckpointSettings(Section):
    """When and how many checkpoints are kept."""

    every: int = Field(25, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Newest checkpoints kept.")
    best: bool = Field(True, description="Also keep the one before which the mean reward of so many steps was highest.")


class ProbeSettings(Section):
    """A probe of where variety comes from."""

    every: int = Field(25, ge=0, description="Steps between probes of token-sampling variety; 0 turns them off.")


class EvalSettings(Section):
    """The table at the end of a run."""

    questions: int | None = Field(
        None, ge=0, description="Distinct questions; the environment's own number if not given, 0 leaves the table out."
    )
    split: Literal["test", "validation"] = Field("test", description="test or validation.")
    controls: tuple[str, ...] | None = Field(
        None, description="Only these rows beside the trained one, such as ['mean', 'shuffled']; all if not given."
    )
    refiner: str | None = Field(None, description="Also a row of the trained latents, improved at test time by this.")
    prompt_questions: int = Field(
        64, ge=1, description="Training questions (at most as many as above) for choosing the best prompt."
    )
