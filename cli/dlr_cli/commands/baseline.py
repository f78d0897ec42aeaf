"""``dlr baseline``: train a supervised rival of latents."""

from pathlib import Path
from typing import Annotated

import typer


def baseline(
    method: Annotated[str, typer.Argument(help="What to train: prefix, prompt … (dlr list baseline).")],
    env: Annotated[str | None, typer.Option(help="Environment id, such as dlr/ChainSum-v0.")] = None,
    main_model: Annotated[
        str | None, typer.Option(help="Frozen model: smollm2-135m, a folder, a .gguf file or a hub id.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Text that answers begin with; the best hand-written one on training questions by default."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps; alone it lifts the default time limit.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Training minutes; alone it lifts the step limit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/<time> by default.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of a run's settings.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A run's setting, or baseline.lr=0.003 and the like."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier one in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train another way to adapt the frozen model, on the training split's gold answers, for dlr eval --baseline.

    prefix and prompt are PEFT's prefix tuning and prompt tuning (pip install 'deeplatent-reasoning[baselines]'), with
    as many virtual tokens as a run has latents. Batch, limits, schedule and token limit are those of a run with the
    same settings, so `dlr run --estimator likelihood` is its counterpart. It ends with the accuracy on validation
    questions, by which settings may be chosen. Ctrl-C saves what has been learned.

    Example: dlr baseline prefix --minutes 10 --out runs/prefix0; dlr eval runs/main --baseline runs/prefix0
    """
    import json

    from dlr_cli.baseline import train_baseline
    from dlr_cli.host import load_host
    from dlr_cli.settings import gather
    from dlr_core.baselines import check_gradient, check_installed
    from dlr_core.config import resolve
    from dlr_core.errors import ConfigError

    host = load_host()
    flags = {"env": env, "main_model": main_model, "seed": seed, "estimator": "likelihood"}
    values = gather(config, flags, assignments or [], steps, minutes, None)
    options, problems = values.pop("baseline", {}), list[str]()
    try:
        host.options("baseline", method, options)
    except ConfigError as error:
        problems += error.problems
    try:
        settings = resolve(values, host)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(*problems)
    check_installed(host.find("baseline", method))
    check_gradient(settings, host)
    result = train_baseline(
        settings, host, method, options, prompt=prompt, out=out, overwrite=overwrite, quiet=as_json
    )  # fmt: skip
    if as_json:
        print(json.dumps(result))
