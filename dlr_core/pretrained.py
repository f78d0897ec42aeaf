"""What is shared of a trained run: the assistant, its chart, the settings, and a card with the control table.

The folder holds ``config.json``, ``model.safetensors`` and ``README.md``; the frozen main model is named in it by its
digest, not copied. ``huggingface_hub``'s mixin brings ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dlr_core.checkpoint import fill, named_tensors
from dlr_core.errors import ConfigError, ModelError, RunFolderError, first_line
from dlr_core.paths import expanded, is_folder
from dlr_core.saved import Card, check
from dlr_core.version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIBRARY = "deeplatent-reasoning"
HTTPError: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]
"""What the hub client raises when the network fails: of whichever HTTP library it is built on."""
PATIENCE = 10.0
"""Seconds that the hub may take to answer."""


class Pretrained(ModelHubMixin, library_name=LIBRARY, tags=["latent-reasoning"], license="apache-2.0"):
    """Saving and loading of a :class:`dlr_core.pipeline.DLRPipeline`, which has these attributes."""

    config: Any
    engine: Any
    assistant: Any
    table: dict[str, Any] | None

    @cached_property
    def digest(self) -> str:
        """Of the main model, which is frozen: half a gigabyte is hashed once."""
        return str(self.engine.decoder.fingerprint())

    def _parts(self) -> dict[str, Any]:
        return {"assistant": self.assistant, "space": self.engine.space}

    def _save_pretrained(self, save_directory: Path) -> None:
        save_file(named_tensors(self._parts()), save_directory / WEIGHTS)
        described = {
            "dlr_version": __version__,
            "main_model_digest": self.digest,
            "run": self.config.model_dump(mode="json"),
            "table": self.table,
        }
        (save_directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
        """A saved assistant, from a folder or a hub repository, on the main model that it was trained on.

        Args:
            pretrained_model_name_or_path: folder, or ``owner/name``.
            options: ``host``, and what ``huggingface_hub.snapshot_download`` takes (``revision``, ``token`` …).

        Raises:
            RunFolderError: neither a folder nor a repository that the hub gives.
            ConfigError: nothing that ``save_pretrained`` has written, or damaged.
            ModelError: it was trained on another main model.
        """
        model_id, host = str(pretrained_model_name_or_path), options.pop("host", None)
        folder = fetch(model_id, **options)
        try:
            described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
            digest, run, table = str(described["main_model_digest"]), described["run"], described["table"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise ConfigError(f"{model_id} is not a saved assistant: {error}") from None
        if table is not None:
            check(Card, table, folder / CONFIG)
        made = cls.assemble(run, host=host)
        if made.digest != digest:
            raise ModelError(f"{model_id} was trained on another main model (digest {digest[:12]}…)")
        try:
            fill(made._parts(), tensors)
        except RuntimeError as error:
            raise ConfigError(f"{model_id} is damaged: {first_line(error)}") from None
        made.table = table
        return made

    @classmethod
    def assemble(cls, settings: Any, *, host: Any = None) -> Any:
        """A pipeline of these settings, its assistant and chart as they are before training."""
        raise NotImplementedError

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """What it is, what it was measured to do beside every control, how to load it."""
        data = ModelCardData(library_name=LIBRARY, license="apache-2.0", tags=["latent-reasoning"])
        config = self.config
        text = f"""---
{data.to_yaml()}
---

# {config.assistant.name} assistant for {config.decoder.model}

A small assistant that writes latent chains which the *frozen* `{config.decoder.model}` reads before it answers
(environment `{config.env}`, space `{config.space.name}`). It is of use with that main model only, which it does not
contain; digest `{self.digest}`.

```python
from dlr_core import DLRPipeline

ask = DLRPipeline.from_pretrained("{kwargs.get("repo_id", "this-folder")}")
```

{card_table(self.table)}
"""
        return ModelCard(text)


def card_table(table: dict[str, Any] | None) -> str:
    """The control table of a run's ``eval.json`` in Markdown."""
    if not table:
        return "It has not been measured beside its controls."
    lines = [
        f"{table['n']} distinct {table['split']} questions of {table['env']}, 95 % intervals, differences paired:",
        "",
        "| | right % | trained − row |",
        "|---|---|---|",
    ]
    for name, row in table["rows"].items():
        low, high = (100 * x for x in row["ci"])
        gap = ""
        if paired := table["paired"].get(name):
            gap = f"{100 * paired['difference']:+.1f} [{100 * paired['ci'][0]:+.1f}, {100 * paired['ci'][1]:+.1f}]"
        lines.append(f"| {name} | {100 * row['accuracy']:.1f} [{low:.1f}, {high:.1f}] | {gap} |")
    return "\n".join(lines)


def fetch(model_id: str, **options: Any) -> Path:
    """A folder, or a hub repository's copy in the hub's cache.

    Raises:
        RunFolderError: neither; the message says what was tried.
    """
    if is_folder(model_id):
        return expanded(model_id)
    try:
        return Path(snapshot_download(model_id, allow_patterns=[CONFIG, WEIGHTS], etag_timeout=PATIENCE, **options))
    except (OSError, HTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise RunFolderError(f"no folder {model_id}, and the hub does not give it: {first_line(error)}") from None
