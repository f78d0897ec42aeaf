"""What a rank computes on: speeds that are reached, not those that are advertised."""

from dataclasses import dataclass, replace

HALF = 2
"""Bytes of a bfloat16 number."""


@dataclass(frozen=True)
class Device:
    """Speeds and sizes of one rank's hardware."""

    name: str
    flops: float
    """FLOP/s of the main model's products."""
    single: float
    """FLOP/s in float32, of the assistant's."""
    memory: float
    """Bytes per second."""
    near: float
    """Bytes per second that a rank sends within a machine."""
    far: float
    """The same between machines."""
    inside: int
    """Ranks in a machine."""
    number: int
    """Bytes of one of the frozen model's numbers."""
    positions: int
    """Positions scored in one pass (``TOKENS``, ``MANY_TOKENS`` in ``decoders/teacher_forced.py``)."""

    def link(self, ranks: int) -> float:
        """Bytes per second of the slowest link that a ring of so many ranks goes over."""
        return self.near if ranks <= self.inside else self.far

    def shared_by(self, ranks: int, cores: int) -> "Device":
        """One rank's part where more ranks than cores take turns on them."""
        part = min(ranks, cores) / ranks
        return replace(self, flops=self.flops * part, single=self.single * part, memory=self.memory * part)


REACHED_FLOPS, REACHED_MEMORY, REACHED_LINK = 0.4, 0.7, 0.7
H100 = Device(
    "H100", REACHED_FLOPS * 989e12, REACHED_FLOPS * 67e12, REACHED_MEMORY * 3.35e12, REACHED_LINK * 450e9,
    REACHED_LINK * 50e9, 8, HALF, 8192,
)  # fmt: skip
"""NVIDIA's data sheet of the H100 SXM (dense bfloat16, float32, HBM3, NVLink in one direction; between machines one
400 Gbit/s adapter a GPU), times the shares above: the first is usual for training, the others for long reads."""
ETHERNET = replace(H100, name="H100, 10 Gbit/s", near=REACHED_LINK * 1.25e9, far=REACHED_LINK * 1.25e9)
"""The same where ranks meet over an ordinary network."""
