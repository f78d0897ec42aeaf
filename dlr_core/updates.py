"""Updates of what is learned: gradients are clipped, and what has no finite loss or gradient is left out."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlr_core.ranks import Ranks


class Updates:
    """The optimiser's side of a run, which one bad batch does not spoil.

    An update of which any loss or gradient is NaN or infinite changes neither parameters nor Adam's moments.

    Attributes:
        skipped: updates left out since :meth:`begin`.
        in_row: steps in a row, up to now, of which an update was left out.
        reason: what was wrong with the last one left out.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], clip: float, patience: int,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        """For an optimiser and its parameters.

        Args:
            optimizer: steps them.
            named: every parameter it trains, by a name that a person can place.
            clip: bound on the gradient's norm.
            patience: steps in a row with updates left out that are too many.
            ranks: whose gradients are averaged.
        """
        self.ranks = ranks or Ranks()
        self.optimizer, self.named, self.clip, self.patience = optimizer, dict(named), clip, patience
        self.skipped = self.in_row = 0
        self.reason = ""
        self._bad: str | None = None

    def begin(self) -> None:
        """A step begins."""
        self.skipped = 0

    def end(self) -> None:
        """The step is over."""
        self.in_row = self.in_row + 1 if self.skipped else 0

    @property
    def stuck(self) -> bool:
        """Whether training has come to its end because nothing is finite any more."""
        return self.in_row >= self.patience

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to the next update's."""
        if not bool(torch.isfinite(loss.detach()).all()):
            self._bad = f"the loss is {float(loss.detach())}"
            return
        loss.backward()

    def apply(self) -> float:
        """Make the update, or leave it out; the gradient's norm before clipping."""
        self._bad = next((bad for bad in self.ranks.gather(self._bad) if bad), None)
        if self._bad is None:
            self.ranks.average(list(self.named.values()))
        gradients = [parameter.grad for parameter in self.named.values() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._bad is None and not bool(torch.isfinite(norm)):
            self._bad = f"the gradient's norm is {float(norm)}, not finite in {self._culprits()}"
        if self._bad is None:
            nn.utils.clip_grads_with_norm_(list(self.named.values()), self.clip, norm)
            self.optimizer.step()
        else:
            self.skipped += 1
            self.reason, self._bad = self._bad, None
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _culprits(self) -> str:
        """Parameters without a finite gradient: the first few by name."""
        found = [name for name, p in self.named.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return ", ".join(found[:3]) + more if found else "sum"
