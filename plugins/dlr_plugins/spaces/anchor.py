"""The text that latents are residuals on."""

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


def anchor_tokens(decoder: Any, options: SpaceOptions, trigger: int) -> tuple[list[int], list[int], list[int]]:
    """Anchor ids (plain, then latent ones), the ``trigger`` last ids, which are fed afterwards, and the T latent ids.

    Without a filler an anchor that is too short has fewer than T: the first of the latent ids are then those that
    every prompt ends with.

    Raises:
        ConfigError: the filler is not one token, or latents have no place.
    """
    filler = decoder.encode(options.filler)
    if options.filler and len(filler) != 1:
        raise ConfigError(f"space.filler: expected one token, got {options.filler!r} which is {len(filler)}")
    ids = decoder.encode(options.anchor)
    ids = filler * (options.num_latents + trigger - len(ids)) + ids
    anchor_ids, pending_ids = ids[: len(ids) - trigger], ids[len(ids) - trigger :]
    places = anchor_ids
    if len(places) < options.num_latents:
        places = [*getattr(decoder, "closing_ids", list)(), *anchor_ids]
    if len(places) < options.num_latents:
        raise ConfigError(
            f"space.num_latents: without space.filler at most {len(places)} latents have a place, on the anchor and "
            f"the chat template's closing tokens; got {options.num_latents}"
        )
    return anchor_ids, pending_ids, places[len(places) - options.num_latents :]
