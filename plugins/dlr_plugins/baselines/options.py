"""Settings that soft prompts share."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SoftPromptOptions(BaseModel):
    """Settings of ``prefix`` and ``prompt``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_virtual_tokens: int = Field(8, ge=1, le=1024, description="Virtual tokens; `dlr baseline` takes the run's T.")
    init: Literal["text", "random"] = Field(
        "text", description="text: begin as the chat template's first tokens; random: as PEFT does."
    )
