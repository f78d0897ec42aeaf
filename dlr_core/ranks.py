"""Training ranks: several processes that make one run, each with the frozen model and its share of a step's questions.

They meet through Accelerate (torch.distributed: gloo on CPUs, nccl on GPUs). Every rank draws the same random numbers
and keeps its slice of them: what is drawn depends on a question's place in the whole batch, not on who works on it.
Gradients are averaged, so that a loss which is a mean over a rank's questions becomes the mean over all of them. Alone,
nothing is sent, and every method gives back what it was given.
"""

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dlr_core.errors import DLRError, ModelError, RankError, first_line

T = TypeVar("T")

MEETING = "DLR_RANKS_MEETING"
"""Environment variable: the file through which the ranks of ``dlr run --ranks`` find each other. They are watched."""
PATIENCE = timedelta(minutes=30)
"""How far behind the others a rank may be before they give it up."""
SEARCH_SECONDS = 5.0
"""How long is looked for the process that has ended, once its connections are gone."""


def launched() -> int:
    """How many ranks a launcher (``accelerate launch``, ``torchrun``, ``dlr run --ranks``) has started; else 1."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() and "RANK" in os.environ else 1


class Ranks:
    """The processes of a run, and this one's place among them."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.reduced_bytes = self.gathered_bytes = 0
        """Sizes of the gradients that were averaged and of the tensors that were gathered, since they were last reset.

        Of one rank's results, as every rank has them; what goes over the wire for them is the backend's affair.
        """
        self._processes: list[tuple[str, int]] = []

    @classmethod
    def of_launch(cls) -> "Ranks":
        """Meet the others of this process's launch; alone if it was started as usual.

        Raises:
            RankError: they do not meet.
        """
        if launched() == 1:
            return cls()
        from accelerate import PartialState

        options: dict[str, Any] = {"timeout": PATIENCE}
        if meeting := os.environ.get(MEETING):
            place = {"rank": int(os.environ["RANK"]), "world_size": launched()}
            options |= {"init_method": f"file://{meeting}", **place}
        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        with warnings.catch_warnings(), _stdout_dropped():
            warnings.simplefilter("ignore")  # how many threads it takes where nobody has said
            try:
                state = PartialState(cpu=on_cpu or not torch.cuda.is_available(), **options)
            except (RuntimeError, ValueError) as error:
                raise RankError(f"the ranks do not meet: {first_line(error)}") from error
        ranks = cls(state.process_index, state.num_processes)
        ranks._processes = ranks.gather((socket.gethostname(), os.getpid()))
        return ranks

    @property
    def first(self) -> bool:
        """Whether this rank writes the run folder and talks to the user."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of ``count`` things in a row are this rank's: the ranks' shares follow one another, none is left over.

        Of a multiple of the ranks all have equally many.
        """
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    # ---- what is sent --------------------------------------------------------------------------------------------

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks; pickled, so for what is small and no tensor."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        found: list[T] = self._meet(lambda: gather_object([value]))
        return found

    def join(self, values: Sequence[T]) -> list[T]:
        """Every rank's values, one after the other."""
        return [value for part in self.gather(list(values)) for value in part]

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank."""
        return any(self.gather(value))

    def tell(self, value: T) -> T:
        """The first rank's value, on all of them."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        told: list[T] = self._meet(lambda: broadcast_object_list([value]))
        return told[0]

    def rows(self, tensor: Tensor) -> Tensor:
        """Every rank's rows as one tensor; gradients flow into this rank's own, ``size``-fold.

        Of a loss over all rows a rank has the part of its own: the sum of the parts is the mean of their ``size``-fold.
        All ranks must have equally many rows.
        """
        if self.size == 1:
            return tensor
        from accelerate.utils import gather

        own = tensor.detach()
        sent = own.to(torch.uint8) if own.dtype == torch.bool else own
        found: Tensor = self._meet(lambda: gather(sent.contiguous())).to(own.dtype)
        self.gathered_bytes += found.nbytes
        if not tensor.requires_grad:
            return found
        attached, size = tensor.clone(), self.size
        attached.register_hook(lambda gradient: gradient * size)
        parts = list(found.chunk(self.size))
        parts[self.rank] = attached
        return torch.cat(parts)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every gradient the mean over the ranks; one that no rank has stays absent.

        All of them are sent at once, absent ones as zeros: always as many bytes as the parameters have.
        """
        if self.size == 1:
            return
        from accelerate.utils import reduce

        there = self.gather([parameter.grad is not None for parameter in parameters])
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        mean: Tensor = self._meet(lambda: reduce(flat, "mean"))
        self.reduced_bytes += mean.nbytes
        parts = mean.split([parameter.numel() for parameter in parameters])
        for parameter, part, known in zip(parameters, parts, zip(*there, strict=True), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if any(known) else None

    # ---- what goes wrong -----------------------------------------------------------------------------------------

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What fails inside on one rank fails on all, and is told once. Nothing may be sent inside.

        Raises:
            DLRError: the first rank's own error, or what another one's says, on the first rank.
            RankError: on the others, which have nothing to tell.
        """
        if self.size == 1:
            yield
            return
        own: DLRError | None = None
        try:
            yield
        except DLRError as error:
            own = error
        said = self.gather(None if own is None else str(own))
        failed = [(rank, text) for rank, text in enumerate(said) if text is not None]
        if not failed:
            return
        if own is not None and self.first:
            raise own
        rank, text = failed[0]
        raise RankError(f"rank {rank}: {text}", told=not self.first) from own

    def same(self, what: str, value: Any) -> None:
        """Make sure that all ranks have the same.

        Raises:
            ModelError: they do not, on the first rank; a RankError on the others.
        """
        found = self.gather(value)
        odd = [rank for rank, other in enumerate(found) if other != found[0]]
        if odd:
            text = f"rank {odd[0]} has another {what} than rank 0: {found[odd[0]]}, not {found[0]}"
            raise ModelError(text) if self.first else RankError(text, told=True)

    def ended(self) -> list[int]:
        """Ranks on this machine whose process is no more."""
        here = socket.gethostname()
        return [rank for rank, (host, number) in enumerate(self._processes) if host == here and not _lives(number)]

    def lost(self, reason: str) -> RankError:
        """The error for a rank that does not answer any more; the lowest one left tells it, unless a launcher does."""
        limit = time.monotonic() + SEARCH_SECONDS
        while not (gone := self.ended()) and time.monotonic() < limit:
            time.sleep(0.05)
        here = min(rank for rank in range(self.size) if rank not in gone)
        names = " and ".join(f"rank {rank} (process {self._processes[rank][1]})" for rank in gone)
        what = f"{names} of {self.size} ranks has ended" if gone else f"a rank does not answer: {reason}"
        told = here != self.rank or (bool(gone) and MEETING in os.environ)
        return RankError(f"{what}: the run cannot go on; resume it from its newest checkpoint", told=told)

    def leave(self) -> None:
        """Part from the others: from now on this process is alone."""
        if self.size == 1:
            return
        from accelerate import PartialState

        self.rank, self.size, self._processes = 0, 1, []
        PartialState().destroy_process_group()

    def _meet(self, call: Callable[[], Any]) -> Any:
        """Something that all ranks do together.

        Raises:
            RankError: one of them does not any more.
        """
        try:
            return call()
        except RuntimeError as error:
            raise self.lost(first_line(error)) from error


def _lives(number: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after yet does not."""
    import psutil

    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _stdout_dropped() -> Iterator[None]:
    """What the backend prints as it connects is dropped: stdout is for the table."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
