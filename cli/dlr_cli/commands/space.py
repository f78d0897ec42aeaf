"""``dlr space``: fit a latent space once, use it anywhere."""

from pathlib import Path
from typing import Annotated

import typer

space_app = typer.Typer(help="Fit latent spaces and save them as artefacts.", no_args_is_help=True)


@space_app.callback()
def _group() -> None:
    """Fit latent spaces and save them as artefacts."""


@space_app.command("fit")
def fit(
    out: Annotated[Path, typer.Argument(help="Folder of the artefact.")],
    env: Annotated[
        str, typer.Option(help="Environment whose training questions the space is fitted on.")
    ] = "dlr/ChainSum-v0",
    space: Annotated[str, typer.Option(help="Kind of space: kv, input …")] = "kv",
    chart: Annotated[str, typer.Option(help="random or principal; not used with --from-run.")] = "principal",
    from_run: Annotated[Path | None, typer.Option(help="Take the chart that this run has learned.")] = None,
    main_model: Annotated[str | None, typer.Option(help="Frozen model.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="Training questions for the measurements.")] = 64,
    initial_scale: Annotated[float, typer.Option(min=0, help="Policy scale whose format rate is reported.")] = 0.3,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as space.latent_dim=16."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Save a latent space that any environment loads by path, with the largest radius that keeps the format.

    The radius is the largest of a grid at which uniform actions in [-1, 1] keep at least half of the anchor's format
    rate. Example: dlr space fit spaces/mine --chart principal, then gymnasium.make(…, space="spaces/mine")
    """
    import json
    import math

    from dlr_cli.host import load_host
    from dlr_cli.settings import settle
    from dlr_cli.table import open_console
    from dlr_core.artefact import save_space
    from dlr_core.errors import ConfigError
    from dlr_core.fitting import fit_radius
    from dlr_core.paths import is_file
    from dlr_core.pipeline import DLRPipeline, make_engine

    if not math.isfinite(initial_scale):
        raise ConfigError(f"--initial-scale: expected a finite number, got {initial_scale}")
    if is_file(out):
        raise ConfigError(f"expected a folder for the space, got the file {out}")
    host = load_host()
    console = open_console(stderr=True)
    with console.status("loading the main model …") as status:
        if from_run is not None:
            trained = DLRPipeline.from_run(from_run, host=host)
            engine, settings = trained.engine, trained.config
        else:
            chosen = [f"space.chart={chart}", *(assignments or [])]
            flags = {"env": env, "main_model": main_model}
            settings = settle(host, None, flags, chosen, None, None, space)
            engine = make_engine(settings, host)
        report = fit_radius(
            engine, count=questions, initial_scale=initial_scale, report=lambda text: status.update(text)
        )
        digest = engine.decoder.fingerprint()
    options = engine.space.options.model_dump(mode="json")
    save_space(engine.space, out, name=settings.space.name, options=options, digest=digest, notes=report)
    if as_json:
        print(json.dumps(report))
        return
    print(f"radius {report['radius']}: the largest tried that keeps half of the anchor's format rate")
    for name, row in report["rows"].items():
        print(f"  {name:16} format {row['format']:.0%}  right {row['correct']:.0%}")
    print(f"saved in {out}")
