"""The built-in plugin. It comes in through the door that is open to everybody: the entry-point group ``dlr``.

Parts are registered by where they are, so that a list of them, or a run with one of each kind, imports no others.
"""

from dlr_core.hookspecs import Register, hookimpl

DLR_API_VERSION = 1


@hookimpl
def dlr_register_assistant(register: Register) -> None:
    """Policies over latent chains."""
    register("small-gpt", "dlr_plugins.assistants.small_gpt:SmallGPT")
    register("mlp", "dlr_plugins.assistants.mlp:MLP")
    register("prior", "dlr_plugins.assistants.prior:Prior")
    register("flow", "dlr_plugins.assistants.flow:Flow")
    register("softcot", "dlr_plugins.assistants.softcot:SoftCoT")
    register("sb3", "dlr_plugins.assistants.sb3:SB3Policy")


@hookimpl
def dlr_register_control(register: Register) -> None:
    """What trained latents are compared with."""
    register("zero", "dlr_plugins.controls.zero:Zero")
    register("random", "dlr_plugins.controls.random:Random")
    register("mean", "dlr_plugins.controls.mean:Mean")
    register("shuffled", "dlr_plugins.controls.shuffled:Shuffled")


@hookimpl
def dlr_register_baseline(register: Register) -> None:
    """Rivals of latents."""
    register("prefix", "dlr_plugins.baselines.prefix:PrefixTuning")
    register("prompt", "dlr_plugins.baselines.prompt:PromptTuning")


@hookimpl
def dlr_register_reward(register: Register) -> None:
    """Rewards."""
    register("dual", "dlr_plugins.rewards.dual:Dual")
    register("correctness", "dlr_plugins.rewards.correctness:Correctness")
    register("format", "dlr_plugins.rewards.format:Format")
    register("ranking", "dlr_plugins.rewards.ranking:Ranking")
    register("decisive", "dlr_plugins.rewards.decisive:Decisive")


@hookimpl
def dlr_register_contrastive(register: Register) -> None:
    """Contrastive objectives."""
    register("bidirectional", "dlr_plugins.contrastive.bidirectional:Bidirectional")
    register("supcon", "dlr_plugins.contrastive.supcon:SupCon")
    register("uniformity", "dlr_plugins.contrastive.uniformity:Uniformity")
    register("laser", "dlr_plugins.contrastive.laser:LaSER")
    register("none", "dlr_plugins.contrastive.none:NoContrast")


@hookimpl
def dlr_register_scorer(register: Register) -> None:
    """Pre-decode filters."""
    register("none", "dlr_plugins.scorers.none:NoScorer")
    register("learned", "dlr_plugins.scorers.learned:LearnedScorer")
    register("likelihood", "dlr_plugins.scorers.likelihood:LikelihoodScorer")
    register("random", "dlr_plugins.scorers.random:RandomScorer")


@hookimpl
def dlr_register_estimator(register: Register) -> None:
    """Policy-gradient estimators."""
    register("pathwise", "dlr_plugins.estimators.pathwise:Pathwise")
    register("pathwise_greedy", "dlr_plugins.estimators.pathwise_greedy:PathwiseGreedy")
    register("score", "dlr_plugins.estimators.score:Score")
    register("hybrid", "dlr_plugins.estimators.hybrid:Hybrid")
    register("likelihood", "dlr_plugins.estimators.likelihood:Likelihood")


@hookimpl
def dlr_register_space(register: Register) -> None:
    """Latent spaces."""
    register("kv", "dlr_plugins.spaces.kv:KVSpace")
    register("input", "dlr_plugins.spaces.input:InputSpace")
    register("vocab", "dlr_plugins.spaces.vocab:VocabSpace")
    register("steer", "dlr_plugins.spaces.steer:SteerSpace")
    register("coconut", "dlr_plugins.spaces.coconut:CoconutSpace")
    register("hrpo", "dlr_plugins.spaces.hrpo:HRPOSpace")


@hookimpl
def dlr_register_refiner(register: Register) -> None:
    """What improves latents at test time."""
    register("latentseek", "dlr_plugins.refiners.latentseek:LatentSeek")


@hookimpl
def dlr_register_decoder(register: Register) -> None:
    """Decoder backends."""
    register("hf", "dlr_plugins.decoders.hf:HFDecoder")
    register("lookup", "dlr_plugins.decoders.lookup:LookupDecoder")
    register("remote", "dlr_plugins.decoders.remote:RemoteDecoder")


@hookimpl
def dlr_register_task(register: Register) -> None:
    """Tasks."""
    register("reasoning-gym", "dlr_plugins.tasks.reasoning:ReasoningGym")
    register("gsm8k", "dlr_plugins.tasks.gsm8k:GSM8K")
    register("recommendation", "dlr_plugins.tasks.recommendation:Recommendation")


@hookimpl
def dlr_register_logger(register: Register) -> None:
    """What is told of a run."""
    register("tensorboard", "dlr_plugins.loggers.tensorboard:TensorBoard")
    register("early-stop", "dlr_plugins.loggers.early_stop:EarlyStop")
