"""What a decoder cannot do for a run, found in the settings alone, before anything is loaded.

A decoder's class says ``gives_gradient = False`` if log p_M of a completion can be neither differentiated nor asked
for, ``embeddings_only = True`` if latents must be input embeddings. Estimators and refiners that do without that
gradient say ``needs_gradient = False``; spaces that change nothing but input embeddings, ``embeddings_only = True``.
"""

from collections.abc import Mapping
from typing import Any

from dlr_core.host import PluginHost


def missing(config: Any, parts: Mapping[str, Any], host: PluginHost) -> list[str]:
    """What settings need and their decoder does not give, one line each.

    Args:
        config: a :class:`dlr_core.config.RunConfig`.
        parts: its components by kind, every option spelt out; those without a valid name left out.
        host: where they are registered.
    """
    name = config.decoder.name
    if name not in host.names("decoder"):
        return []
    decoder, found = host.find("decoder", name).factory, []
    kinds = {kind: host.find(kind, part.name).factory for kind, part in parts.items()}
    narrow = getattr(decoder, "embeddings_only", False)
    if narrow and "space" in kinds and not getattr(kinds["space"], "embeddings_only", False):
        found.append(
            f"decoder {name!r} takes input embeddings only, and space {parts['space'].name!r} changes more than those: "
            "set space.name to input or vocab"
        )
    if getattr(decoder, "reports_entropy", None) is False and getattr(kinds.get("reward"), "needs_entropy", False):
        found.append(f"decoder {name!r} reports no entropy, which reward {parts['reward'].name!r} needs")
    if not getattr(decoder, "gives_gradient", True):
        reasons = _of_gradients(config, parts, kinds, host)
        found += [f"decoder {name!r} gives no gradient of the main model: {reason}" for reason in reasons]
    return found


def _of_gradients(config: Any, parts: Mapping[str, Any], kinds: Mapping[str, Any], host: PluginHost) -> list[str]:
    """What in the settings needs the main model's gradient, or its likelihood of given completions."""
    reasons = []
    if "estimator" in kinds and getattr(kinds["estimator"], "needs_gradient", True):
        reasons.append(f"estimator {parts['estimator'].name!r} needs it; use score")
    if "space" in parts and parts["space"].options.get("chart") == "joint":
        reasons.append("a joint chart needs it; set space.chart to principal or random")
    if config.replay.chains:
        reasons.append("replay needs it; set replay.chains=0")
    if config.warmstart.steps:
        reasons.append("a warm start needs it; set warmstart.steps=0")
    if getattr(kinds.get("scorer"), "needs_gold", False):
        reasons.append(f"scorer {parts['scorer'].name!r} asks for likelihoods; use none, learned or random")
    refiner = config.eval.refiner
    if refiner in host.names("refiner") and getattr(host.find("refiner", refiner).factory, "needs_gradient", True):
        reasons.append(f"refiner {refiner!r} needs it; leave eval.refiner out")
    return reasons
