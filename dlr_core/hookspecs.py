"""The doors of the project: one pluggy hook per kind of component.

A plugin is a module named by an entry point of the group ``dlr``. It declares the API version it was written for and
implements any of the hooks below; each receives ``register(name, factory)`` and calls it once per component::

    from dlr_core import hookimpl

    DLR_API_VERSION = 1

    class Terse:
        \"\"\"Correct answers only, worth less the longer they are.\"\"\"
        def __call__(self, sample):
            return sample.correct / (1 + 0.01 * sample.tokens)

    @hookimpl
    def dlr_register_reward(register):
        register("terse", Terse)

A factory is a class, or where it is: ``register("terse", "my_package.terse:Terse")`` leaves the module alone until the
part is used, so that heavy imports cost only those who use it. If the class has a nested pydantic model called
``Options``, that model validates the component's settings before anything heavy is loaded and an instance is passed as
the first argument. The protocols that the instances must satisfy are in :mod:`dlr_core.protocols`.
"""

from typing import Any, Protocol

import pluggy

PROJECT = "dlr"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """What a hook receives: call it once per component."""

    def __call__(self, name: str, factory: Any) -> None:
        """Offer ``factory`` (a class, a function, or ``"package.module:Name"`` of one) under ``name``."""


@hookspec
def dlr_register_assistant(register: Register) -> None:
    """Offer assistants: policies that write latent chains (:class:`dlr_core.protocols.Assistant`)."""


@hookspec
def dlr_register_control(register: Register) -> None:
    """Offer controls: what a trained run's latents are compared with (:class:`dlr_core.protocols.Control`)."""


@hookspec
def dlr_register_baseline(register: Register) -> None:
    """Offer baselines: other ways to adapt a frozen model, on gold answers (:class:`dlr_core.protocols.Baseline`)."""


@hookspec
def dlr_register_reward(register: Register) -> None:
    """Offer rewards: a number for one decoded chain (:class:`dlr_core.protocols.Reward`)."""


@hookspec
def dlr_register_contrastive(register: Register) -> None:
    """Offer contrastive objectives over a step's chains (:class:`dlr_core.protocols.Contrastive`)."""


@hookspec
def dlr_register_scorer(register: Register) -> None:
    """Offer scorers: predictions made before decoding (:class:`dlr_core.protocols.Scorer`)."""


@hookspec
def dlr_register_estimator(register: Register) -> None:
    """Offer policy-gradient estimators (:class:`dlr_core.protocols.Estimator`)."""


@hookspec
def dlr_register_space(register: Register) -> None:
    """Offer latent spaces: what an action does to the frozen model (:class:`dlr_core.protocols.Space`)."""


@hookspec
def dlr_register_refiner(register: Register) -> None:
    """Offer refiners: what improves a question's latents at test time (:class:`dlr_core.protocols.Refiner`)."""


@hookspec
def dlr_register_decoder(register: Register) -> None:
    """Offer decoder backends for the frozen main model (:class:`dlr_core.protocols.Decoder`)."""


@hookspec
def dlr_register_task(register: Register) -> None:
    """Offer tasks: questions with a verifier (:class:`dlr_core.protocols.Task`)."""


@hookspec
def dlr_register_env(register: Register) -> None:
    """Offer environments: a Gymnasium id and the task it stands for (:class:`dlr_core.env_spec.EnvSpec`)."""


@hookspec
def dlr_register_logger(register: Register) -> None:
    """Offer loggers: told of a run step by step, they may ask it to stop (:class:`dlr_core.protocols.Logger`)."""


@hookspec(firstresult=True)
def dlr_make_env(name: str, spec: Any, num_envs: int, kwargs: dict[str, Any]) -> Any:
    """Build the learner's vector environment of an id; the first plugin that returns one is taken.

    Args:
        name: the id.
        spec: its :class:`dlr_core.env_spec.EnvSpec`.
        num_envs: sub-environments.
        kwargs: what :func:`dlr_core.pipeline.env_kwargs` gives.
    """
