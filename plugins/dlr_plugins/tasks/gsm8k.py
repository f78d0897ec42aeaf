"""GSM8K (Cobbe et al. 2021): grade-school word problems, from a JSONL file or the hub."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from dlr_core.errors import DataError, first_line
from dlr_core.paths import expanded
from dlr_core.records import Item, Verdict
from dlr_plugins.tasks.answers import last_number, normalise_number
from dlr_plugins.tasks.jsonl import objects
from dlr_plugins.tasks.mathcheck import equivalent
from dlr_plugins.tasks.shelved import Shelved

HUB = "openai/gsm8k"


class GSM8K(Shelved):
    """GSM8K, or any JSONL of ``question`` and ``answer`` (gold after ``####``), checked with math-verify."""

    class Options(BaseModel):
        """Settings of ``gsm8k``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: str | None = Field(None, description=f"JSONL file; without one {HUB} is fetched from the hub.")

    def __init__(self, options: Options) -> None:
        rows = read_jsonl(expanded(options.path)) if options.path else read_hub()
        super().__init__()
        for question, answer in rows:
            self.shelve(question, answer)

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        """The last number against the gold one, or math-verify where the answer is an expression."""
        parsed = last_number(completion)
        right = parsed == normalise_number(item.answer) and parsed is not None
        if not right and any(mark in completion for mark in ("\\", "/", "^", "%")):
            right = equivalent(item.answer, completion)
        return Verdict(parsed, float(right), float(parsed is not None and ended))


def gold(answer: str) -> str:
    """The final answer of a worked solution: what follows ``####``, else the whole text."""
    return answer.rpartition("####")[2].strip()


def read_jsonl(path: Path) -> list[tuple[str, str]]:
    """Question and gold answer of every line.

    Raises:
        DataError: no such file, or a line that is not such an object; the message gives its number.
    """
    rows = []
    for number, row in objects(path):
        pair = (row.get("question"), row.get("answer"))
        if not all(isinstance(text, str) and text.strip() for text in pair) or not gold(str(pair[1])):
            raise DataError(f"{path}:{number}: expected an object with non-empty texts 'question' and 'answer'")
        rows.append((str(pair[0]), gold(str(pair[1]))))
    if not rows:
        raise DataError(f"{path} holds no questions")
    return rows


def read_hub() -> list[tuple[str, str]]:
    """The hub's training and test rows together; the split is ours, by content.

    Raises:
        DataError: `datasets` is not installed or the hub cannot be reached.
    """
    try:
        import datasets  # an extra: heavy, and needed only here
    except ImportError:
        raise DataError(
            "GSM8K needs a file (--set task.path=FILE.jsonl), or `pip install datasets` for the hub"
        ) from None
    try:
        parts = datasets.load_dataset(HUB, "main")
        return [(row["question"], gold(row["answer"])) for part in ("train", "test") for row in parts[part]]
    except Exception as error:  # the hub client raises many types for no network
        reason = first_line(error)
        raise DataError(f"cannot fetch {HUB} ({reason}); give a file with --set task.path=FILE.jsonl") from None
