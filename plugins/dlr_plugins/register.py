"""The built-in plugin. It comes in through the door that is open to everybody: the entry-point group ``dlr``."""

from dlr_core.hookspecs import Register, hookimpl

DLR_API_VERSION = 1


@hookimpl
def dlr_register_assistant(register: Register) -> None:
    """Policies over latent chains."""
    from dlr_plugins.assistants.flow import Flow
    from dlr_plugins.assistants.mlp import MLP
    from dlr_plugins.assistants.prior import Prior
    from dlr_plugins.assistants.sb3 import SB3Policy
    from dlr_plugins.assistants.small_gpt import SmallGPT
    from dlr_plugins.assistants.softcot import SoftCoT

    register("small-gpt", SmallGPT)
    register("mlp", MLP)
    register("prior", Prior)
    register("flow", Flow)
    register("softcot", SoftCoT)
    register("sb3", SB3Policy)


@hookimpl
def dlr_register_control(register: Register) -> None:
    """What trained latents are compared with."""
    from dlr_plugins.controls.mean import Mean
    from dlr_plugins.controls.random import Random
    from dlr_plugins.controls.shuffled import Shuffled
    from dlr_plugins.controls.zero import Zero

    register("zero", Zero)
    register("random", Random)
    register("mean", Mean)
    register("shuffled", Shuffled)


@hookimpl
def dlr_register_baseline(register: Register) -> None:
    """Rivals of latents."""
    from dlr_plugins.baselines.prefix import PrefixTuning
    from dlr_plugins.baselines.prompt import PromptTuning

    register("prefix", PrefixTuning)
    register("prompt", PromptTuning)


@hookimpl
def dlr_register_reward(register: Register) -> None:
    """Rewards."""
    from dlr_plugins.rewards.correctness import Correctness
    from dlr_plugins.rewards.decisive import Decisive
    from dlr_plugins.rewards.dual import Dual
    from dlr_plugins.rewards.format import Format
    from dlr_plugins.rewards.ranking import Ranking

    register("dual", Dual)
    register("correctness", Correctness)
    register("format", Format)
    register("ranking", Ranking)
    register("decisive", Decisive)


@hookimpl
def dlr_register_contrastive(register: Register) -> None:
    """Contrastive objectives."""
    from dlr_plugins.contrastive.bidirectional import Bidirectional
    from dlr_plugins.contrastive.laser import LaSER
    from dlr_plugins.contrastive.none import NoContrast
    from dlr_plugins.contrastive.supcon import SupCon
    from dlr_plugins.contrastive.uniformity import Uniformity

    register("bidirectional", Bidirectional)
    register("supcon", SupCon)
    register("uniformity", Uniformity)
    register("laser", LaSER)
    register("none", NoContrast)


@hookimpl
def dlr_register_scorer(register: Register) -> None:
    """Pre-decode filters."""
    from dlr_plugins.scorers.learned import LearnedScorer
    from dlr_plugins.scorers.likelihood import LikelihoodScorer
    from dlr_plugins.scorers.none import NoScorer
    from dlr_plugins.scorers.random import RandomScorer

    register("none", NoScorer)
    register("learned", LearnedScorer)
    register("likelihood", LikelihoodScorer)
    register("random", RandomScorer)


@hookimpl
def dlr_register_estimator(register: Register) -> None:
    """Policy-gradient estimators."""
    from dlr_plugins.estimators.hybrid import Hybrid
    from dlr_plugins.estimators.likelihood import Likelihood
    from dlr_plugins.estimators.pathwise import Pathwise
    from dlr_plugins.estimators.pathwise_greedy import PathwiseGreedy
    from dlr_plugins.estimators.score import Score

    register("pathwise", Pathwise)
    register("pathwise_greedy", PathwiseGreedy)
    register("score", Score)
    register("hybrid", Hybrid)
    register("likelihood", Likelihood)


@hookimpl
def dlr_register_space(register: Register) -> None:
    """Latent spaces."""
    from dlr_plugins.spaces.coconut import CoconutSpace
    from dlr_plugins.spaces.hrpo import HRPOSpace
    from dlr_plugins.spaces.input import InputSpace
    from dlr_plugins.spaces.kv import KVSpace
    from dlr_plugins.spaces.steer import SteerSpace
    from dlr_plugins.spaces.vocab import VocabSpace

    register("kv", KVSpace)
    register("input", InputSpace)
    register("vocab", VocabSpace)
    register("steer", SteerSpace)
    register("coconut", CoconutSpace)
    register("hrpo", HRPOSpace)


@hookimpl
def dlr_register_refiner(register: Register) -> None:
    """What improves latents at test time."""
    from dlr_plugins.refiners.latentseek import LatentSeek

    register("latentseek", LatentSeek)


@hookimpl
def dlr_register_decoder(register: Register) -> None:
    """Decoder backends."""
    from dlr_plugins.decoders.hf import HFDecoder
    from dlr_plugins.decoders.lookup import LookupDecoder
    from dlr_plugins.decoders.remote import RemoteDecoder

    register("hf", HFDecoder)
    register("lookup", LookupDecoder)
    register("remote", RemoteDecoder)


@hookimpl
def dlr_register_task(register: Register) -> None:
    """Tasks."""
    from dlr_plugins.tasks.gsm8k import GSM8K
    from dlr_plugins.tasks.reasoning import ReasoningGym
    from dlr_plugins.tasks.recommendation import Recommendation

    register("reasoning-gym", ReasoningGym)
    register("gsm8k", GSM8K)
    register("recommendation", Recommendation)


@hookimpl
def dlr_register_logger(register: Register) -> None:
    """What is told of a run."""
    from dlr_plugins.loggers.early_stop import EarlyStop
    from dlr_plugins.loggers.tensorboard import TensorBoard

    register("tensorboard", TensorBoard)
    register("early-stop", EarlyStop)
