"""``dlr run``: train, then compare with the controls."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    context: typer.Context,
    assistant: Annotated[str | None, typer.Option(help="Policy over latent chains: small-gpt, mlp, prior …")] = None,
    reward: Annotated[str | None, typer.Option(help="Reward: dual, correctness, format …")] = None,
    env: Annotated[str | None, typer.Option(help="Environment id, such as dlr/ChainSum-v0.")] = None,
    main_model: Annotated[
        str | None, typer.Option(help="Frozen model: smollm2-135m, a folder, a .gguf file or a hub id.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Latent space: kv, input, or the folder of a saved one.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Policy-gradient estimator.")] = None,
    contrastive: Annotated[str | None, typer.Option(help="Contrastive objective: bidirectional, none …")] = None,
    scorer: Annotated[str | None, typer.Option(help="Pre-decode filter: none, learned, random …")] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(help="One more logger, such as early-stop, beside those of the settings; repeatable."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps; alone it lifts the default time limit.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Training minutes; alone it lifts the step limit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<time> by default.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as space.num_latents=4."),
    ] = None,
    curriculum: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Tasks learned one after another: env ids or tasks, or a TOML file."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings as JSON, a memory plan on stderr, and stop.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder; --steps or --minutes extend it.")
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that train together, each on its share of every step's questions."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the final table as JSON.")] = False,
) -> None:
    """Train an assistant to steer the frozen main model, then compare it with its controls.

    Settings come from the defaults, then --config, then the options, then --set. Ctrl-C or SIGTERM saves a checkpoint:
    go on with --resume, to the same metrics. A second one ends it at once.

    Example: dlr run --assistant small-gpt --reward dual --out runs/mine

    With --curriculum every task is learned by a skill of its own (a library with a router over one frozen model) and,
    for comparison, by one assistant in sequence; it ends in matrices task × stage. The same command again goes on where
    it stopped. Example: dlr run --curriculum dlr/ChainSum-v0,reasoning-gym:gcd --minutes 4 --out runs/skills

    With --ranks N the same run is made by N processes of this machine (accelerate launch does it too): docs/ranks.md.
    """
    import json
    import sys
    from datetime import datetime

    from dlr_cli.following import follow
    from dlr_cli.host import load_host
    from dlr_cli.launching import launch
    from dlr_cli.planning import print_plan
    from dlr_cli.session import execute
    from dlr_cli.settings import gather, settle
    from dlr_cli.table import open_console
    from dlr_core.config import resolve
    from dlr_core.errors import ConfigError
    from dlr_core.rank_rules import for_ranks
    from dlr_core.ranks import Ranks, launched
    from dlr_core.rundir import check_free, read_manifest

    host = load_host()
    flags = {"env": env, "main_model": main_model, "assistant": assistant, "reward": reward,
             "contrastive": contrastive, "scorer": scorer, "estimator": estimator, "seed": seed,
             "logger": logger}  # fmt: skip
    if curriculum is not None:
        from dlr_cli.curriculum import learn, read_plan

        if resume is not None or env is not None:
            raise ConfigError("--curriculum names its own tasks and goes on in --out: drop --env and --resume")
        if (ranks or launched()) > 1:
            raise ConfigError("--curriculum trains on one rank: drop --ranks, and start it without a launcher")
        stages = read_plan(curriculum, gather(config, flags, assignments or [], steps, minutes, space), host)
        if dry_run:
            print(json.dumps([stage.config.model_dump(mode="json") for stage in stages], indent=2))
            return
        learn(stages, host, out or Path("runs/curriculum"), overwrite=overwrite, as_json=as_json)
        return
    team = Ranks.of_launch()
    with team.agreeing():
        if resume is not None:
            sources = {name: context.get_parameter_source(name) for name in context.params}
            given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
            if given - {"resume", "steps", "minutes", "as_json", "dry_run", "ranks"}:
                raise ConfigError(
                    "--resume continues a run as it was: only --steps, --minutes, --ranks and --json go with it"
                )
            limits = {} if steps is None and minutes is None else {"steps": steps, "minutes": minutes}
            settings = resolve({**read_manifest(resume)["config"], **limits}, host)
        else:
            settings = settle(host, config, flags, assignments or [], steps, minutes, space)
        if team.size > 1 and ranks not in (None, team.size):
            raise ConfigError(f"--ranks: the launcher has started {team.size}, got {ranks}")
        settings = for_ranks(settings, host, max(team.size, ranks or 1))
    if dry_run:
        if team.first:
            print(settings.model_dump_json(indent=2), flush=True)
            print_plan(settings, host, max(team.size, ranks or 1), open_console(stderr=True))
        return
    if team.size == 1 and ranks is not None and ranks > 1:
        folder = resume or out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
        check_free(folder, resume=resume is not None, overwrite=overwrite)
        named = [] if resume or out else ["--out", str(folder)]
        sys.exit(launch([*context.obj, *named], ranks, folder))
    if team.first:
        execute(
            settings, host, out=resume or out, resume=resume is not None, overwrite=overwrite, as_json=as_json,
            ranks=team,
        )  # fmt: skip
    else:
        follow(settings, host, team)
