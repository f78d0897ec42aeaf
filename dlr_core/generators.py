"""The process's own random generators. This project draws from its own; a plugin may draw from these."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

TORCH = "process_generator"
"""Names of the tensors below begin with this."""


def seed_process(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def process_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Python's and NumPy's generators, JSON-ready, and PyTorch's (one for each device) as tensors."""
    version, numbers, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    key = numpy["state"]["key"].tolist()
    plain = {
        "python": [version, list(numbers), gauss],
        "numpy": {**numpy, "state": {"key": key, "pos": int(numpy["state"]["pos"])}},
    }
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    states = [torch.get_rng_state(), *devices]
    return plain, {f"{TORCH}.{number}": state for number, state in enumerate(states)}


def restore_process(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """From :func:`process_state`; devices that are not there now are passed over."""
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy = plain["numpy"]
    key = np.array(numpy["state"]["key"], np.uint32)
    np.random.set_state({**numpy, "state": {"key": key, "pos": numpy["state"]["pos"]}})
    torch.set_rng_state(tensors[f"{TORCH}.0"])
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := tensors.get(f"{TORCH}.{device + 1}")) is not None:
            torch.cuda.set_rng_state(state, device)
