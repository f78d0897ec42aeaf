"""A watch over the main model, which nothing in a run may train or write to."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from dlr_core.errors import PluginError


class Frozen:
    """Notices when a parameter of the main model is written to or made trainable, and by whom.

    It looks at PyTorch's version counters, which costs microseconds, so that it can look after every part of every
    step. A write through ``.data`` does not move them: the digest at the end of the run finds that.
    """

    def __init__(self, decoder: Any) -> None:
        """For a decoder; one without a module called ``model`` is only held to its digest."""
        model = getattr(decoder, "model", None)
        self._model = model if isinstance(model, nn.Module) else nn.Module()
        self._named = dict(self._model.named_parameters())
        self._versions = {name: parameter._version for name, parameter in self._named.items()}
        self._passing = [name for name, parameter in self._named.items() if parameter.is_meta]
        """Weights kept off the devices: what stands for them is another object after every pass."""

    def touched(self) -> str | None:
        """What was done to the main model; None if nothing was."""
        for name, parameter in self._named.items():
            if parameter._version != self._versions[name]:
                return f"wrote to {name}"
            if parameter.requires_grad:
                return f"made {name} trainable"
        for name in self._passing:
            if self._model.get_parameter(name).requires_grad:
                return f"made {name} trainable"
        return None

    @contextmanager
    def watch(self, who: str) -> Iterator[None]:
        """Hold what runs inside to its word.

        Raises:
            PluginError: the main model was touched; the message names the part and the parameter.
        """
        self._refuse("a part of this run")
        yield
        self._refuse(who)

    def _refuse(self, who: str) -> None:
        if (done := self.touched()) is not None:
            raise PluginError(f"{who} {done} of the main model, which is frozen")

    def refuse_parameters(self, parameters: Iterable[nn.Parameter], who: str) -> None:
        """Refuse parameters of the main model among those that are to be trained.

        Raises:
            PluginError: there is one.
        """
        own = {id(parameter): name for name, parameter in self._named.items()}
        own |= {id(self._model.get_parameter(name)): name for name in self._passing}
        for parameter in parameters:
            if id(parameter) in own:
                raise PluginError(f"{who} offers {own[id(parameter)]} of the main model for training: it is frozen")
