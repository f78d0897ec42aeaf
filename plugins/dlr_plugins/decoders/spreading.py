"""A main model that is spread over several devices, or partly kept on a disk, as Accelerate spreads one for inference.

Accelerate's hooks bring what enters a module to the module's device, and weights that are kept elsewhere to it for the
length of its forward pass. What reads weights without calling their module, and what holds tensors of several layers,
has to look where they are: that is what is here, and ``.to(…)`` where caches are used.
"""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from dlr_core.errors import ConfigError
from dlr_plugins.decoders.packed_linear import PackedLinear

DeviceMap = Literal["none", "auto", "balanced", "balanced_low_0", "sequential"]


def _read_memory(given: Any) -> Any:
    """``"0=20GiB,cpu=60GiB"`` as a table, and every entry of a table looked at."""
    from accelerate.utils import convert_file_size_to_int

    if isinstance(given, str):
        entries = [entry.partition("=") for entry in given.split(",") if entry.strip()]
        given = {place.strip(): size.strip() for place, _, size in entries}
    if not isinstance(given, Mapping):
        return given
    for place, size in given.items():
        if str(place) not in ("cpu", "mps") and not str(place).isdecimal():
            raise ValueError(f"expected a device's number, cpu or mps before =, as in 0=20GiB,cpu=60GiB; not {place!r}")
        try:
            convert_file_size_to_int(size)
        except ValueError:
            raise ValueError(f"expected a size such as 20GiB for {place}, not {size!r}") from None
    return {str(place): str(size) for place, size in given.items()}


Memory = Annotated[dict[str, str], BeforeValidator(_read_memory)]
"""Most memory of every device."""
log = logging.getLogger(__name__)


def placement(device: str, device_map: DeviceMap, max_memory: Memory, offload_folder: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told of devices; nothing where the whole model goes to one.

    Raises:
        ConfigError: settings that do not go together.
    """
    if device_map == "none":
        named = {"max_memory": max_memory, "offload_folder": offload_folder}
        problems = [f"decoder.{key}: does nothing without decoder.device_map=auto" for key, it in named.items() if it]
        if problems:
            raise ConfigError(*problems)
        return {}
    if device != "auto":
        raise ConfigError(f"decoder.device: expected auto with decoder.device_map={device_map}, got {device!r}")
    memory: dict[int | str, int | str] = {}
    for place, size in max_memory.items():
        memory[int(place) if place.isdecimal() else place] = int(size) if size.isdecimal() else size
        if place.isdecimal() and int(place) >= torch.cuda.device_count():
            raise ConfigError(
                f"decoder.max_memory: device {place}, but there are {torch.cuda.device_count()} GPUs here"
            )
    wanted: dict[str, Any] = {"device_map": device_map, "max_memory": memory or None}
    return {**wanted, "offload_folder": offload_folder} if offload_folder else wanted


def is_spread(model: nn.Module) -> bool:
    """Whether Accelerate's hooks run the model; False where all of it came to lie on one device."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def gather(model: Any) -> torch.device:
    """Let a spread model's body end where its inputs begin, as the whole model does; returns that device.

    Raises:
        ConfigError: the input embeddings, which are read without being called, are not on a device.
    """
    table = model.get_input_embeddings().weight
    if table.device.type == "meta":
        raise ConfigError("decoder.max_memory: no device has room for the input embeddings, which must lie on one")
    if is_spread(model):
        from accelerate.hooks import AlignDevicesHook, add_hook_to_module

        skipped = getattr(model, "_skip_keys_device_placement", None)
        back = AlignDevicesHook(execution_device=table.device, io_same_device=True, skip_keys=skipped)
        add_hook_to_module(model.base_model, back, append=True)
        away = sum(weight.nbytes for weight in model.parameters() if weight.is_meta)
        if away:
            places = sorted({str(place) for place in model.hf_device_map.values()} & {"cpu", "disk"})
            log.warning(
                "%s: %.3g MB of its weights are kept on %s: every pass reads them from there, and a pass with "
                "gradients holds them all until it has gone back",
                *(type(model).__name__, away / 1e6, " and ".join(places)),
            )
    device: torch.device = table.device
    return device


def real_weight(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """A tensor of the model's state as it is, wherever it is kept."""
    if tensor.device.type != "meta":
        return tensor
    path, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(path)
    packed = vars(module).get("forward")
    found: Tensor = packed.weight() if isinstance(packed, PackedLinear) else module._hf_hook.weights_map[leaf]
    return found
