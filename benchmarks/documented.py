"""Figures in the documentation, put there by what measures them: between two comments that name it."""

from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def between(page: str, name: str) -> tuple[str, str, str]:
    """What stands before, between and after a name's comments."""
    first, last = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = page.partition(first)
    inside, _, after = rest.partition(last)
    return before + first, inside, last + after


def document(page: Path, name: str, text: str) -> None:
    """Replace what stands between them."""
    before, _, after = between(page.read_text(encoding="utf-8"), name)
    page.write_text(before + text + after, encoding="utf-8")
