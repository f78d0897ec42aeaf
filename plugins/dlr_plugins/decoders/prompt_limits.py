"""What a main model can read: tokens that it knows, and no more of them than it has positions for."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from dlr_core.errors import ConfigError, DataError, DLRError, ModelError, first_line, shown


def fitting(ids: list[int], question: str, vocabulary: int, positions: int | None) -> list[int]:
    """The tokens of a prompt, if the model can read them.

    Raises:
        ModelError: a token that the model does not have: the tokenizer is another model's.
        DataError: more tokens than the model has positions.
    """
    if positions is not None and len(ids) >= positions:
        raise DataError(f"expected questions of at most {positions} tokens, got {len(ids)}: {shown(question)}")
    return known(ids, vocabulary)


def known(ids: list[int], vocabulary: int) -> list[int]:
    """The tokens, if all of them are in the model's vocabulary; else ModelError."""
    if ids and max(ids) >= vocabulary:
        raise ModelError(
            f"the tokenizer gives token {max(ids)}, the main model has {vocabulary}: are they of one model?"
        )
    return ids


def check_room(mask_NS: Tensor, more: int, positions: int | None) -> None:
    """Refuse completions for which the model has no positions left: ConfigError."""
    if positions is None or mask_NS.shape[1] + more <= positions:
        return
    longest = int(mask_NS.sum(1).max())  # padding takes no positions
    if longest + more > positions:
        raise ConfigError(
            f"the main model has {positions} positions, {longest} of them hold the prompt: {more} more do not fit "
            "(decoder.max_new_tokens)"
        )


@contextmanager
def usable(name: str) -> Iterator[None]:
    """Whatever a loaded model raises on first use means that it cannot be used: ModelError."""
    try:
        yield
    except DLRError:
        raise
    except Exception as error:
        raise ModelError(f"the main model {shown(name)} cannot be used: {first_line(error)}") from None


def positions_of(config: object) -> int | None:
    """Positions that a model has, as its configuration says; None if it does not say so."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
