"""``dlr push``: share a trained assistant, its chart and its control table."""

from pathlib import Path
from typing import Annotated

import typer


def push(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    repository: Annotated[str | None, typer.Argument(help="Hub repository, owner/name; made if there is none.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Write the files there; nothing is uploaded.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Put a run's assistant, chart, settings and a card with its control table on the hub, or into a folder.

    The main model is not copied: it is named by its digest, and no other is accepted when the assistant is loaded with
    DLRPipeline.from_pretrained. Uploading needs a token (`hf auth login`, or HF_TOKEN).
    Example: dlr push runs/main me/chain-sum
    """
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    from dlr_cli.host import load_host
    from dlr_cli.table import open_console
    from dlr_core.errors import ConfigError, DLRError, first_line
    from dlr_core.pipeline import DLRPipeline
    from dlr_core.pretrained import HTTPError

    if (repository is None) == (folder is None):
        raise ConfigError("expected a repository (owner/name) or --folder, one of them")
    console = open_console()
    with console.status("loading …"):
        trained = DLRPipeline.from_run(run, host=load_host())
    if folder is not None:
        trained.save_pretrained(folder)
        console.print(f"wrote {folder}", highlight=False)
        return
    try:
        with console.status("uploading …"):
            where = trained.push_to_hub(str(repository), private=private, model_card_kwargs={"repo_id": repository})
    except (OSError, HTTPError, HFValidationError, LocalTokenNotFoundError) as error:
        raise DLRError(f"cannot push to {repository}: {first_line(error)}") from None
    console.print(f"pushed to {where}", highlight=False)
