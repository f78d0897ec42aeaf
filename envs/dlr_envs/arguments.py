"""What callers give to environments, checked: numbers that are whole, actions that are arrays of them."""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlr_core.errors import ActionError, ConfigError, first_line, shown
from dlr_core.values import LARGEST


def whole(name: str, value: Any, least: int, most: int = LARGEST) -> int:
    """A whole number within bounds, of Python or NumPy.

    Raises:
        ConfigError: it is none.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_) or not least <= number <= most:
        bounds = f"at least {least}" if most == LARGEST else f"from {least} to {most}"
        raise ConfigError(f"{name}: expected a whole number of {bounds}, got {shown(value)}")
    return number


def table(name: str, value: Any) -> Mapping[str, Any]:
    """A mapping, empty for None.

    Raises:
        ConfigError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: expected a table, got {shown(value)}")
    return value


def sequence(name: str, value: Any) -> list[Any]:
    """A list of what can be gone through once.

    Raises:
        ConfigError: it cannot, or it is text or a table.
    """
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise ConfigError(f"{name}: expected a list, got {shown(value)}")
    return list(value)


def all_true(name: str, value: Any) -> bool:
    """Whether a flag, or every one of an array of flags, is set.

    Raises:
        ConfigError: it is something else.
    """
    try:
        flags = np.asarray(value)
    except ValueError:
        flags = np.asarray(None)
    if flags.dtype.kind not in "biu":
        raise ConfigError(f"{name}: expected true or false for every sub-environment, got {shown(value)}")
    return bool(flags.all())


def as_array(actions: Any) -> NDArray[Any]:
    """Actions as NumPy takes them.

    Raises:
        ActionError: it does not.
    """
    try:
        return np.asarray(actions)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged; what is no array; a tensor with a gradient
        raise ActionError(f"expected an array of actions, got {type(actions).__name__}: {first_line(error)}") from None


def read_actions(actions: Any, expected: tuple[int, ...]) -> NDArray[np.float32]:
    """Actions within [-1, 1], of a shape.

    Raises:
        ActionError: another shape, or not finite numbers.
    """
    array = as_array(actions)
    if array.shape != expected:
        raise ActionError(f"expected actions of shape {expected}, got {array.shape}")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ActionError(f"actions must be finite numbers, got {array.dtype}")
    taken: NDArray[np.float32] = array.clip(-1, 1).astype(np.float32)
    return taken
