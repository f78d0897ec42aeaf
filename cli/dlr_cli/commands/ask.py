"""``dlr ask``: one question, answered with a run's latents and without."""

from pathlib import Path
from typing import Annotated

import typer


def ask(
    run: Annotated[Path, typer.Argument(help="Run folder, or one that `dlr push --folder` wrote.")],
    question: Annotated[str, typer.Argument(help="Any question; it need not be of the run's task.")],
    refiner: Annotated[
        str | None, typer.Option(help="Also with latents improved at test time; see: dlr list refiner.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer a question with the assistant's mean chain, and show which tokens each latent lies nearest to.

    The plain prompt's and the anchor's answers stand beside it, under the same token limit.
    Example: dlr ask runs/main "State the final answer to the following arithmetic problem: 27 + 45 ="
    """
    import json

    from dlr_cli.host import load_host
    from dlr_cli.table import open_console
    from dlr_core.paths import is_file
    from dlr_core.pipeline import DLRPipeline
    from dlr_core.pretrained import CONFIG

    console = open_console(stderr=as_json)
    with console.status("loading …"):
        host = load_host()
        improve = host.create("refiner", refiner) if refiner else None
        load = DLRPipeline.from_pretrained if is_file(run / CONFIG) else DLRPipeline.from_run
        trained = load(run, host=host)
        found = trained.explain(question, improve)
    if as_json:
        print(json.dumps(found))
        return
    labels = {"plain": "plain prompt", "anchor": "anchor only", "trained": "with latents", "refined": "refined"}
    for name in [name for name in labels if name in found]:
        console.print(f"{labels[name]:13} {found[name]!r}", highlight=False)
    for number, (rms, tokens) in enumerate(zip(found["latent_rms"], found["nearest_tokens"], strict=True), 1):
        near = ", ".join(map(repr, tokens))
        console.print(f"latent {number:2}: size {rms:.2f}, nearest to {near}", highlight=False)
