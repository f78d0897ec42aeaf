"""``dlr eval``: a trained run beside its controls, on questions it never saw."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    env: Annotated[str | None, typer.Option(help="Evaluate on another environment.")] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="Distinct questions; the environment's own number if not given.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="With more than 1: pass@k and maj@k of k sampled chains.")] = 1,
    split: Annotated[str, typer.Option(help="test for figures, validation for choices.")] = "test",
    data_seed: Annotated[int, typer.Option(min=0, help="Which questions of the split.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare a trained run with its controls: greedy accuracy, 95 % intervals, differences paired over questions.

    Questions are split by content, so none was trained on. Example: dlr eval runs/main --n 300 --json
    """
    import json

    from dlr_cli.host import load_host, make_learner_env
    from dlr_cli.table import open_console, print_table
    from dlr_core.errors import ConfigError
    from dlr_core.evaluate import control_table
    from dlr_core.pipeline import DLRPipeline, eval_sizes
    from dlr_core.rundir import read_manifest

    if split not in ("test", "validation"):
        raise ConfigError(f"--split: expected test or validation, got {split!r}")
    host = load_host()
    before = read_manifest(run)["main_model"]["digest_before"]
    console = open_console(stderr=as_json)
    with console.status("loading …") as status:
        trained = DLRPipeline.from_run(run, make_learner_env, host=host, env=env)
        own = host.create("env", trained.config.env).eval_questions
        questions, prompt_questions = eval_sizes(trained.config, host, n or trained.config.eval.questions or own)
        result = control_table(
            trained.engine,
            trained.assistant,
            host,
            questions=questions,
            split=split,  # type: ignore[arg-type]
            seed=data_seed,
            prompt_questions=prompt_questions,
            k=k,
            report=lambda text: status.update(f"evaluating: {text} …"),
        )
    after = trained.engine.decoder.fingerprint()
    result = {"env": trained.config.env, **result, "digest": {"before": before, "after": after}}
    if as_json:
        print(json.dumps(result))
    else:
        print_table(result, console)
