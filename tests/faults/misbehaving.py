"""A toy task, and everything that can go wrong while it is learned: each function builds one fault into a process."""

import itertools
import os
import random
import resource
import signal
import time
from functools import wraps
from typing import Any

import torch

from dlr_core import API_VERSION, PluginHost, hookimpl
from dlr_core.protocols import EnvSpec
from dlr_core.records import Item, Verdict
from dlr_core.splits import SPLITS, split_of


class Digits:
    """Any digit is a right answer: a tiny random model finds some, and replay and frontier are both in use."""

    def __init__(self) -> None:
        self.shelves: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for number in range(80):
            text = f"Say a digit that is not {number}."
            shelf = self.shelves[split_of(text)]
            shelf.append(Item(text, "1", len(shelf)))

    def size(self, split: str) -> int:
        return len(self.shelves[split])

    def item(self, split: str, index: int) -> Item:
        return self.shelves[split][index % len(self.shelves[split])]

    def gold_text(self, item: Item) -> str:
        return item.answer

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        first = completion[:1]
        return Verdict(first or None, float(first in set("13579")), 1.0)


class Toy:
    DLR_API_VERSION = API_VERSION

    @hookimpl
    def dlr_register_task(self, register: Any) -> None:
        register("digits", Digits)

    @hookimpl
    def dlr_register_env(self, register: Any) -> None:
        register("dlr/Digits-v0", lambda: EnvSpec("digits", {}, 4))


def offer() -> None:
    """Have every host know the toy."""
    from dlr_cli import session

    made = PluginHost.from_entry_points

    def with_toy() -> PluginHost:
        host = made()
        host.add(Toy(), "toy")
        return host

    PluginHost.from_entry_points = with_toy  # type: ignore[assignment,method-assign]
    session.render = lambda runs: ""  # drawing the report takes longer than the run


SETTINGS = {
    "space.num_latents": 2, "space.latent_dim": 4, "space.radius": 4.0, "assistant.width": 16, "assistant.layers": 1,
    "assistant.initial_scale": 0.4, "batch.questions": 2, "batch.samples": 3, "batch.decodes": 2, "scorer": "learned",
    "estimator": "pathwise", "decoder.temperature": 0.2, "batch.epochs": 2, "batch.resample_dead": 1,
    "optim.entropy": 0.01, "optim.warmup": 2, "replay.chains": 4, "replay.capacity": 12, "replay.search": 3,
    "replay.fresh": 1, "replay.frontier": 8, "replay.cache_mb": 0.3, "replay.tries": 2, "warmstart.steps": 1,
    "probe.every": 3, "checkpoint.every": 2, "eval.questions": 0, "loggers": "[]",
}  # fmt: skip
"""Every source of state is in use: scorer, joint chart, replay, frontier, sampled tokens, warm start."""


def toy_run(model: Any, out: Any, steps: int = 10, **changes: Any) -> list[str]:
    """The command of a run on the toy."""
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    flags = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    return [
        "run",
        "--env",
        "dlr/Digits-v0",
        "--main-model",
        str(model),
        "--out",
        str(out),
        "--steps",
        str(steps),
        *flags,
    ]


# ---- the program is ended ------------------------------------------------------------------------------------------


def killed_at_file_operation(number: int) -> None:
    """kill -9 just before the number-th operation on the files of checkpoints, logs and manifest."""
    import shutil
    from pathlib import Path

    from dlr_core import checkpoint, durable

    count = itertools.count(1)

    def deadly(call: Any) -> Any:
        @wraps(call)
        def wrapped(*arguments: Any, **more: Any) -> Any:
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **more)

        return wrapped

    for owner, name in ((os, "replace"), (os, "fsync"), (shutil, "rmtree"), (Path, "mkdir"), (Path, "write_bytes"),
                        (Path, "write_text"), (checkpoint, "seal"), (durable, "digest")):  # fmt: skip
        setattr(owner, name, deadly(getattr(owner, name)))
    whole = Path.write_bytes

    def torn(self: Path, data: bytes) -> int:
        whole(self, data[: len(data) // 2])
        return whole(self, data)

    Path.write_bytes = torn  # type: ignore[method-assign]


def interrupted(number: int, step: int, times: int = 1) -> None:
    """A signal to oneself in the middle of a step, or several."""

    def act() -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)

    _at_call("dlr_core.rollout", "Collector", "collect", step, act)


# ---- the machine ---------------------------------------------------------------------------------------------------


def full_disk(size: int) -> None:
    """No file may grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def unprivileged() -> None:
    """Not root, whom nothing stops from writing, once the plugins are loaded."""
    from dlr_cli import session

    check = session.check_free

    def dropped(*arguments: Any, **more: Any) -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        check(*arguments, **more)

    session.check_free = dropped


def jumping_clock() -> None:
    """The wall clock is somewhere else, days away, whenever somebody looks."""
    true, rng = time.time, random.Random(0)
    time.time = lambda: true() + rng.uniform(-1e6, 1e6)
    time.time_ns = lambda: int(1e9 * time.time())


# ---- plugins -------------------------------------------------------------------------------------------------------


def _at_call(module: str, owner: str, name: str, number: int, act: Any) -> None:
    """Have the number-th call of a method do something first; what that returns, if anything, is its result."""
    from importlib import import_module

    holder = getattr(import_module(module), owner)
    call, count = getattr(holder, name), itertools.count(1)

    @wraps(call)
    def wrapped(self: Any, *arguments: Any, **more: Any) -> Any:
        if next(count) == number and (given := act()) is not None:
            return given
        return call(self, *arguments, **more)

    setattr(holder, name, wrapped)


def _fail() -> float:
    raise KeyError("who")


REWARDS: dict[str, Any] = {
    "raises": _fail,
    "returns NaN": lambda: float("nan"),
    "returns infinity": lambda: float("inf"),
    "returns a list": lambda: [1.0, 2.0],
    "sleeps for ever": lambda: time.sleep(1e6),
}


def bad_reward(kind: str, call: int) -> None:
    _at_call("dlr_plugins.rewards.dual", "Dual", "__call__", call, REWARDS[kind])


def bad_assistant(kind: str, call: int) -> None:
    """Chains that break the contract from some call on."""
    from dataclasses import replace

    from dlr_plugins.assistants.small_gpt import SmallGPT

    from dlr_core.protocols import ChainBatch

    class Outside(ChainBatch):
        actions_NTD = property(lambda self: 1.5 * self.pre_NTD.sign())  # type: ignore[assignment]

    def spoil(chains: ChainBatch) -> ChainBatch:
        if kind == "NaN":
            return replace(chains, pre_NTD=chains.pre_NTD * float("nan"))
        if kind == "wrong shape":
            return replace(chains, pre_NTD=chains.pre_NTD[:, 1:])
        return Outside(chains.noise_NTD, chains.policy, chains.pre_NTD)

    sample, count = SmallGPT.sample, itertools.count(1)

    def wrapped(self: Any, *arguments: Any) -> ChainBatch:
        chains = sample(self, *arguments)
        return spoil(chains) if next(count) >= call else chains

    SmallGPT.sample = wrapped  # type: ignore[method-assign]


def thief(kind: str, call: int) -> None:
    """A space, which is given the decoder, that writes to the main model or has it trained."""
    from dlr_plugins.spaces.kv import KVSpace

    inject, count = KVSpace.inject, itertools.count(1)

    def wrapped(self: Any, *arguments: Any) -> Any:
        if next(count) == call:
            weight = self.decoder[0].model.get_input_embeddings().weight
            if kind == "writes":
                with torch.no_grad():
                    weight.add_(1e-3)
            elif kind == "trains":
                weight.requires_grad_(True)
            else:
                weight.data[0, 0] += 1.0  # behind PyTorch's back
        return inject(self, *arguments)

    KVSpace.inject = wrapped  # type: ignore[method-assign]


def not_finite(first: int, last: int) -> None:
    """Losses that are NaN from one call of the estimator to another."""
    from dlr_plugins.estimators.pathwise import Pathwise

    estimate, count = Pathwise.__call__, itertools.count(1)

    def wrapped(self: Any, batch: Any) -> Any:
        loss, logs = estimate(self, batch)
        return (loss * float("nan") if first <= next(count) <= last else loss), logs

    Pathwise.__call__ = wrapped  # type: ignore[method-assign]


def ranked(rank: int, size: int, meeting: str) -> None:
    """No fault: one of several ranks, as a launcher starts them."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"DLR_RANKS_MEETING": meeting, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
