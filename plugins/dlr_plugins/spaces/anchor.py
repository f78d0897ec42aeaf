"""The text that latents are residuals on."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dlr_core.errors import ConfigError


class SpaceOptions(BaseModel):
    """Settings shared by the built-in spaces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_latents: int = Field(8, ge=1, le=64, description="T, latents in a chain.")
    latent_dim: int = Field(64, ge=1, le=4096, description="D, width of a latent.")
    radius: float = Field(
        1.5, gt=0, description="Scale of the residual, in standard deviations of what it is added to."
    )
    anchor: str = Field("Result:", min_length=1, description="Text at the latent positions.")
    filler: str = Field(
        "\n",
        description="Token that fills the anchor up on the left when T is larger; '' for none: then the latents before "
        "the anchor's lie on what the prompt ends with, the closing tokens of the chat template.",
    )
    chart: Literal["joint", "random", "principal"] = Field(
        "joint",
        description="joint: trained with the run; random or principal: fixed (needed by SB3 and `score`).",
    )
    seed: int = Field(0, ge=0, description="Seed of a random chart.")


def anchor_tokens(decoder: Any, options: SpaceOptions, trigger: int) -> tuple[list[int], list[int]]:
    """Anchor ids (plain tokens, then the T latent ones) and the ``trigger`` last ids, which are fed afterwards.

    Without a filler there are fewer latent ones than T where the anchor is too short.

    Raises:
        ConfigError: the filler is not one token.
    """
    filler = decoder.encode(options.filler)
    if options.filler and len(filler) != 1:
        raise ConfigError(f"space.filler: expected one token, got {options.filler!r} which is {len(filler)}")
    ids = decoder.encode(options.anchor)
    ids = filler * (options.num_latents + trigger - len(ids)) + ids
    return ids[: len(ids) - trigger], ids[len(ids) - trigger :]


def latent_tokens(decoder: Any, num_latents: int, anchor_ids: Sequence[int]) -> list[int]:
    """The T tokens at the latent positions: the anchor's, and before it what every prompt ends with.

    Raises:
        ConfigError: there are fewer.
    """
    ids = list(anchor_ids)
    if len(ids) < num_latents:
        ids = [*getattr(decoder, "closing_ids", list)(), *ids]
    if len(ids) < num_latents:
        raise ConfigError(
            f"space.num_latents: without space.filler at most {len(ids)} latents have a place, on the anchor and the "
            f"chat template's closing tokens; got {num_latents}"
        )
    return ids[len(ids) - num_latents :]
