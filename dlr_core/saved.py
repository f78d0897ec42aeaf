"""What a run folder's files must hold to be read: a folder may be a stranger's, an older version's, or half a file.

Only what is read is asked for, and whatever else a file holds is left in it. Figures are bounded, so that nothing
endless is drawn or averaged.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlr_core.errors import RunFolderError, shown

Figure = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Span = Annotated[list[Figure], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Named(_Part):
    name: str


class _Settings(_Part):
    env: str
    seed: int
    assistant: _Named
    estimator: _Named
    decoder: _Part


class _MainModel(_Part):
    digest_before: str


class Baseline(_Named):
    """What a manifest says of a trained baseline."""

    label: str
    prompt: str
    options: dict[str, Any]


class _Training(_Part):
    steps: int | None = None
    seconds: Figure | None = None


class _Cost(_Part):
    flops: Figure
    main_flops: Figure
    assistant_flops: Figure
    scorer_flops: Figure
    decodes: Figure
    search_decodes: Figure
    seconds: Figure


_NOTHING = _Cost(
    flops=0, main_flops=0, assistant_flops=0, scorer_flops=0, decodes=0, search_decodes=0, seconds=0
)  # fmt: skip


class Manifest(_Part):
    """manifest.json."""

    config: _Settings
    main_model: _MainModel
    gold_answers_seen: bool
    baseline: dict[str, Any] = {}
    training: _Training = _Training()
    cost: _Cost = _NOTHING
    algorithm: str = ""
    packages: dict[str, str] = {}
    plugins: dict[str, str] = {}
    machine: dict[str, str | int] = {}
    resumed: list[dict[str, Any]] = []


class _Digest(_Part):
    before: str
    after: str


class _Score(_Part):
    accuracy: Share
    ci: Span


class _Row(_Score):
    format: Figure
    tokens: Figure
    gflops: Figure = 0.0
    latents: Figure = 0.0
    iqm: Figure = 0.0
    label: str = ""
    prompt: str = ""


class _Gap(_Part):
    difference: Figure
    ci: Span


class _Sampled(_Part):
    """Of the trained row, where chains were sampled."""

    k: int
    samples: int
    pass_at: dict[str, Share]
    pass_at_k: Share
    maj_at_k: Share


class Card(_Part):
    """What a shared assistant says of its control table."""

    env: str
    split: str
    n: int
    rows: dict[str, _Score]
    paired: dict[str, _Gap]


class Table(_Part):
    """eval.json."""

    env: str
    split: str
    n: int
    rows: dict[str, _Row]
    paired: dict[str, _Gap]
    per_question: dict[str, list[Share]] = {}
    digest: _Digest = _Digest(before="", after="")
    cost: _Cost | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Table":
        if "trained" not in self.rows or not set(self.rows) - {"trained"} <= set(self.paired):
            raise ValueError("expected a row 'trained', and its difference from every other row")
        lengths = {len(values) for values in self.per_question.values()}
        if self.per_question and (not set(self.rows) <= set(self.per_question) or len(lengths) > 1 or 0 in lengths):
            raise ValueError("expected per_question to hold as many results for every row")
        trained = self.rows["trained"].model_extra or {}
        if "pass_at_k" in trained and "1" not in _Sampled.model_validate(trained).pass_at:
            raise ValueError("expected pass_at to begin with 1")
        return self


class _Accuracy(_Part):
    accuracy: Share


class _Kept(_Part):
    n: int
    without: _Accuracy
    anchor: _Accuracy
    with_: _Accuracy = Field(alias="with")
    difference: _Gap


class Retention(_Part):
    """retention.json."""

    identical: int
    of: int
    tasks: dict[str, _Kept]
    digest: _Digest


class _Learner(_Named):
    average: Figure
    backward_transfer: Figure
    forgetting: Figure
    matrix: list[list[Share | None]]


class Accumulation(_Part):
    """accumulation.json."""

    tasks: Annotated[list[str], Field(min_length=1, max_length=100)]
    learners: list[_Learner]
    remarks: list[str]

    @model_validator(mode="after")
    def _square(self) -> "Accumulation":
        size = len(self.tasks)
        if any([len(row) for row in learner.matrix] != [size] * size for learner in self.learners):
            raise ValueError(f"expected matrices of {size} rows and columns")
        return self


class Step(_Part):
    """A line of metrics.jsonl."""

    step: Annotated[int, Field(ge=0, le=2**53)]
    seconds: Figure = 0.0
    main_flops: Figure | None = None
    assistant_flops: Figure | None = None
    scorer_flops: Figure | None = None


class TimedStep(Step):
    """The same of a run that is to be made again: its learning rates may have followed the clock."""

    seconds: Figure
    progress: Figure = 0.0


class Trace(_Part):
    """A line of traces.jsonl."""

    question: str
    answer: str
    completion: str
    correct: Figure
    nearest_tokens: list[Annotated[list[str], Field(min_length=1)]]


def check(model: type[BaseModel], value: Any, where: Path) -> None:
    """Refuse what a file holds if it is not what the model asks for.

    Raises:
        RunFolderError: with the first problem, its path, and what was found there.
    """
    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{where} is damaged: {place}: {first['msg']}, got {shown(first['input'])}") from None


def read_saved(model: type[BaseModel] | None, path: Path) -> Any:
    """A JSON file's content, checked where a model is given; None if there is no such file.

    Raises:
        RunFolderError: it cannot be read, or does not hold what it should.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None
    if model is not None:
        check(model, value, path)
    return value


def read_rows(model: type[BaseModel], path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file, each checked; none if there is no such file.

    Raises:
        RunFolderError: it cannot be read, or a line does not hold what it should.
    """
    if not path.is_file():
        return []
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text in them may hold other line ends
        for line in filter(str.strip, lines):
            rows.append(json.loads(line))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is damaged after {len(rows)} rows: {error}") from None
    for row in rows:
        check(model, row, path)
    return rows


def read_table(run: Path) -> dict[str, Any] | None:
    """The control table that a run left; None if it left none.

    Raises:
        RunFolderError: it is damaged.
    """
    table: dict[str, Any] | None = read_saved(Table, run / "eval.json")
    return table
