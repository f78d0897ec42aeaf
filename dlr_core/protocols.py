"""What each kind of component must offer. Implementations need not inherit from these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dlr_core.cost import TokenFlops, Usage
from dlr_core.density import Policy
from dlr_core.env_spec import EnvSpec as EnvSpec
from dlr_core.records import Completions, Item, PromptCache, Sample, Verdict
from dlr_core.splits import Split

Steer = Callable[[int, Tensor], Tensor]
"""(layer, hidden states (N, P, H) that enter it) → hidden states that enter it instead."""


class Decoder(Protocol):
    """A frozen main model. Built from its options alone.

    Class attributes may say what it does not give (:mod:`dlr_core.capabilities`).
    """

    hidden_size: int
    """H."""
    kv_sizes: list[tuple[int, int]]
    """(key/value heads, head width) of every layer."""
    device: torch.device
    dtype: torch.dtype
    usage: Usage
    """Positions computed since the model was loaded."""
    flops_per_token: TokenFlops

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""

    def token(self, index: int) -> str:
        """The text of one vocabulary entry."""

    def embedding_table(self) -> Tensor:
        """The (V, H) input embedding table."""

    def prefill(
        self, questions: Sequence[str], anchor: Sequence[int], pending: Sequence[int], latents: int
    ) -> PromptCache:
        """Run question and anchor tokens once; ``pending`` tokens are left to be fed when decoding starts."""

    def extend(self, cache: PromptCache, embeds_NPH: Tensor) -> Tensor:
        """Final-norm states (N, P, H) of embeddings fed after a cache, which is left as it was."""

    def grow(self, cache: PromptCache, embeds_NPH: Tensor, steer: Steer | None = None) -> PromptCache:
        """The cache with embeddings fed after it, hidden states changed on the way; differentiable, nothing pending."""

    def decode(
        self,
        cache: PromptCache,
        max_new_tokens: int,
        temperature: float = 0.0,
        generators: Sequence[np.random.Generator] | None = None,
    ) -> Completions:
        """Complete every row; greedy at temperature 0, else sampled, each row from its own generator."""

    def log_prob(self, cache: PromptCache, ids_NL: Tensor, mask_NL: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probability (N,) in nats of completions; differentiable in what was injected, never in the weights."""

    def logits(self, states_NPH: Tensor) -> Tensor:
        """Logits (N, P, V) of the tokens that follow final-norm states; differentiable in the states."""

    def encode_targets(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts as completions with their end token: ids (N, L) and mask (N, L)."""

    def first_values(self, ids_M: Tensor) -> Tensor:
        """First-layer attention values (M, heads·width) of single tokens."""

    def rotate(self, keys_NThd: Tensor, positions_NT: Tensor) -> Tensor:
        """Turn unrotated keys (N, T, heads, width) by their positions, as the model does; -positions turn back."""

    def state_bound(self) -> Tensor:
        """Largest possible magnitude (H,) of each final-norm state coordinate."""

    def fingerprint(self) -> str:
        """SHA-256 of every parameter and buffer, in hexadecimal."""


class Space(Protocol):
    """A latent space. Built as ``factory(options, decoder=…)``; an ``nn.Module`` if its chart is trainable."""

    num_latents: int
    latent_dim: int
    anchor_ids: list[int]
    """Plain prompt tokens before the latents, then the latent ones: T, or fewer if some lie on the prompt's own end."""
    pending_ids: list[int]
    """Tokens fed after the residual is in place."""

    def calibrate(self, questions: Sequence[str]) -> None:
        """Fit whatever depends on the model's own states, from training questions (no answers)."""

    def inject(self, cache: PromptCache, actions_NTD: Tensor) -> PromptCache:
        """Put latents in [-1, 1] into a prompt; differentiable; all-zero actions change nothing."""

    def observe(self, cache: PromptCache, actions_NtD: Tensor) -> Tensor:
        """Final-norm state (N, H) of anchor token t, given the first t latents; differentiable in them."""

    def nearest_tokens(self, actions_TD: Tensor, count: int = 3) -> list[list[str]]:
        """For each latent the vocabulary tokens whose effect lies closest to it."""

    def trainable(self) -> list[nn.Parameter]:
        """Parameters of a joint chart; empty for a fixed one."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to rebuild the chart."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object:
        """Restore a chart."""


@dataclass(frozen=True)
class ChainBatch:
    """Latent chains written by an assistant, N rows."""

    noise_NTD: Tensor
    """ε, standard normal."""
    policy: Policy
    """π(·|x, earlier latents) of every latent, attached to the graph."""
    pre_NTD: Tensor
    """u, such as μ + σε, attached to the graph."""

    @property
    def actions_NTD(self) -> Tensor:
        """a = tanh(u)."""
        return self.pre_NTD.tanh()


class Assistant(Protocol):
    """A policy over latent chains, an ``nn.Module``.

    Built as ``factory(options, hidden_size=H, num_latents=T, latent_dim=D)``. One that has a method
    ``calibrate(states_BSH, mask_BS)`` is shown some training questions' states before training begins. One with
    ``observes = True`` was trained elsewhere, on environments' observations: it finds a question's first observation as
    the last state, is evaluated like any other, and not trained.
    """

    def sample(self, states_NSH: Tensor, mask_NS: Tensor, noise_NTD: Tensor) -> ChainBatch:
        """Write a chain for every row; zero noise gives the mean chain. Reparameterised: gradients flow to u."""

    def evaluate(self, states_NSH: Tensor, mask_NS: Tensor, pre_NTD: Tensor) -> Policy:
        """The policy at given pre-squash latents (N, T, D), for the score estimator."""


class Control(Protocol):
    """What trained latents are compared with. Built without arguments."""

    def __call__(self, latents_NTD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Latents that stand in for a trained run's latents on N questions, same shape, in [-1, 1]."""


class Baseline(Protocol):
    """Another way to adapt a frozen model, taught gold answers: a rival for the control table.

    Built as ``factory(options, decoder=…)``; its options have ``lr``. A class attribute ``needs`` may map modules that
    must be installed to what pip is to be told.
    """

    label: str
    """The row's name."""
    virtual_tokens: int
    """Positions that it adds to every prompt."""

    def trainable(self) -> list[nn.Parameter]:
        """What is learned; never the main model's weights."""

    def log_prob(self, questions: Sequence[str], prompt: str, answers: Sequence[str]) -> Tensor:
        """Log-probability (N,) in nats of answers after questions and prompt, differentiable in what is learned."""

    def adapted(self) -> Any:
        """The frozen model under what was learned: a decoder that answers prompts without latents."""

    def save(self, folder: Path) -> None:
        """Write what was learned, without pickle."""

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote; RunFolderError if it is missing or damaged."""


class Refiner(Protocol):
    """What improves one question's latents while it is being answered. Built from its options alone."""

    def __call__(
        self, decoder: Decoder, space: Space, questions: Sequence[str], latents_NTD: Tensor, max_new_tokens: int
    ) -> Tensor:
        """Better latents for N questions, same shape, in [-1, 1]; it knows questions, never their answers."""


class Reward(Protocol):
    """A number for one decoded chain."""

    def __call__(self, sample: Sample) -> float:
        """The reward, finite."""


class Scorer(Protocol):
    """A pre-decode filter. Built as ``factory(options, hidden_size=H, num_latents=T, latent_dim=D)``.

    One with ``decodes_all = True`` keeps every chain (K = G). One with ``needs_gold = True`` is asked
    ``predict_from_gold(log_prob_BG)`` instead of :meth:`predict`, with log p_M(gold answer | question, chain), and its
    runs are marked as having seen gold answers.
    """

    def predict(self, states_BSH: Tensor, mask_BS: Tensor, latents_BGTD: Tensor) -> Tensor:
        """q (B, G): the reward expected of each chain, before anything is decoded; detached."""

    def update(
        self, states_BSH: Tensor, mask_BS: Tensor, latents_BKTD: Tensor, rewards_BK: Tensor
    ) -> Mapping[str, float]:
        """Learn from decoded outcomes only; returns what to log."""

    def state_dict(self) -> dict[str, Any]:
        """Weights, for the checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> object:
        """Restore :meth:`state_dict`."""


class Task(Protocol):
    """Questions, verifier. Made by ``factory(options)`` (plus ``argument=…`` for names like ``kind:argument``)."""

    def size(self, split: Split) -> int:
        """Questions in a split."""

    def item(self, split: Split, index: int) -> Item:
        """Question ``index`` (wrapping around) of a split, the same one every time."""

    def gold_text(self, item: Item) -> str:
        """What the `likelihood` estimator teaches the model to complete; nothing else reads it."""

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        """Judge a completion; ``ended`` tells whether the model stopped by itself."""


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told of a run before its first step."""

    folder: Path
    """The run folder. It exists; a logger that writes files writes them there."""
    config: Mapping[str, Any]
    """The resolved settings, JSON-ready, as manifest.json has them."""
    main_model: str
    """Digest of the frozen model."""
    parameters: Mapping[str, int]
    """Trained parameters: ``assistant``, ``chart``."""
    earlier: Sequence[Mapping[str, Any]] = ()
    """The rows of metrics.jsonl that a resumed run goes on from; empty for a new run."""


Outcome = Literal["finished", "stopped", "interrupted", "failed"]
"""Of a run: its limits were reached; a logger asked for it; the user did, and may resume it; an error."""


@dataclass(frozen=True)
class RunSummary:
    """What a logger is told when a run ends, however it ends."""

    outcome: Outcome
    steps: int
    """Trained in all."""
    seconds: float
    """Of training."""
    reason: str | None = None
    """Why it was stopped, or the error in a line."""
    cost: Mapping[str, Any] | None = None
    """The account of all steps (:func:`dlr_core.cost.total_cost`)."""
    table: Mapping[str, Any] | None = None
    """The control table, if one was measured (:func:`dlr_core.controls.control_table`)."""


class Logger(Protocol):
    """Is told of a run; may ask it to stop. Built from its options before the main model is loaded.

    What the constructor raises refuses the run. What is raised afterwards costs the run its logger and nothing else:
    one warning, and the run goes on without it.
    """

    def begin(self, run: RunInfo) -> None:
        """The main model is loaded, a resumed run restored; training is about to begin."""

    def step(self, metrics: Mapping[str, Any]) -> str | None:
        """One step was trained and written to metrics.jsonl.

        Args:
            metrics: a copy of its row, and under ``phases`` the seconds that its parts took. Values may be None.

        Returns:
            None, or why the run should stop: it then ends as if it had reached its limits, table included.
        """

    def end(self, summary: RunSummary) -> None:
        """The run has ended; called once for every ``begin``, with the last chance to write and close files."""
