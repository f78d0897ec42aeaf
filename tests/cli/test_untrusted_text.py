"""What a model or a stranger's run folder says, shown on a terminal and in a page: it stays text."""

import json
import shutil
from html.parser import HTMLParser

import pytest
from dlr_cli.report.page import render
from dlr_cli.screen import Screen
from dlr_cli.table import markdown_table, print_markdown, print_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.table import Table

FEW = settings(max_examples=40, deadline=None, database=None, suppress_health_check=[*HealthCheck])
HOSTILE = "\x1b[31m[/bold] [link=file:///etc]x[/link] <script>alert(1)</script> $\\frac{ :smile: \u202e \r\b \x9b2J"
MODEL = {"digest_before": "0" * 64, "digest_after": "0" * 64}
ROW = {"accuracy": 0.5, "ci": [0.4, 0.6], "format": 1.0, "tokens": 3.0, "gflops": 1.0, "latents": 2}
GAP = {"difference": 0.0, "ci": [-0.1, 0.1]}


def table(name=HOSTILE):
    rows = {"plain": {**ROW, "label": name, "prompt": name}, name: ROW, "trained": ROW}
    paired = {"plain": GAP, name: GAP}
    return {
        "env": name,
        "split": "test",
        "n": 3,
        "rows": rows,
        "paired": paired,
        "digest": {"before": "a", "after": name},
    }


def make_run(folder, text=HOSTILE):
    """A run folder as a stranger might have written it."""
    folder.mkdir(parents=True)
    config = {
        "env": text,
        "seed": 0,
        "assistant": {"name": text},
        "estimator": {"name": text},
        "decoder": {"model": text},
    }
    manifest = {"config": config, "main_model": MODEL, "gold_answers_seen": False, "algorithm": text}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "eval.json").write_text(json.dumps(table(text)))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward": 0.5, "seconds": 1.0}) + "\n")
    trace = {"question": text, "answer": text, "completion": text, "correct": 1.0, "nearest_tokens": [[text]]}
    (folder / "traces.jsonl").write_text(
        json.dumps(trace, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace"
    )
    return folder


class Seen(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def obeyed(text):
    """Characters that a terminal obeys, line ends left out."""
    return [
        char for char in text if (ord(char) < 32 and char not in "\n") or 0x7F <= ord(char) < 0xA0 or char in "\u202e"
    ]


# ---- terminal ------------------------------------------------------------------------------------------------------


@FEW
@given(st.text())
def test_no_text_reaches_a_terminal_with_control_sequences(capsys, text):
    screen = Screen()
    screen.print(text, highlight=False)
    shown = Table(title=text)
    shown.add_column(text)
    shown.add_row(text)
    screen.print(shown)
    with screen.status(text) as status:
        status.update(text)
    print(markdown_table([text[:3]], [[text]]))
    assert obeyed(capsys.readouterr().out) == []


def test_markup_and_emoji_codes_are_text(capsys):
    Screen().print("[bold]x[/bold] [/nonsense] :smile:", highlight=False)
    assert capsys.readouterr().out == "[bold]x[/bold] [/nonsense] :smile:\n"


def test_a_control_table_of_a_stranger_is_shown_as_text(capsys):
    print_table(table(), Screen())
    print_markdown(table())
    out = capsys.readouterr().out
    assert obeyed(out) == []
    assert r"\x1b" in out


def test_an_error_is_one_line_whatever_it_holds(dlr, tmp_path):
    for text in (HOSTILE, "a\nb\nerror: c"):
        code, out, err = dlr("run", "--reward", text, "--dry-run")
        assert (code, out) == (2, "")
        assert err.startswith("error: no reward named ")
        assert err.count("\n") == 1
        assert obeyed(err) == []


def test_a_wrong_option_or_command_is_one_error_line_too(dlr):
    for arguments in (["run", "--rewrd", "x"], ["rnu"], ["eval"], ["run", "--steps", "x"], ["run", "--seed", "-1"]):
        code, out, err = dlr(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_arguments_that_are_no_text_are_refused(dlr):
    assert dlr("ask", "runs/x", "\udcff") == (2, "", "error: expected arguments in UTF-8\n")


def test_more_memory_than_there_is_is_one_line(dlr, monkeypatch):
    import dlr_cli.session

    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 TB"),
    ):

        def greedy(*parts, error=error):
            raise error

        monkeypatch.setattr(dlr_cli.session, "build_trainer", greedy)
        code, _, err = dlr("run", "--steps", 0, "--out", "never", "--set", "loggers=[]")
        assert code == 2
        assert err.startswith("error: not enough memory")


# ---- the page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [HOSTILE, '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% x %}", "\u2028\x85", "'", "猫"]
)
def test_a_page_holds_no_tag_or_attribute_that_a_run_folder_brought(text, tmp_path):
    page = render([make_run(tmp_path / "run", text)])
    own = Seen(render([make_run(tmp_path / "own", "word")]))
    tags = Seen(page)
    assert {tag for tag, _ in tags.tags} == {tag for tag, _ in own.tags}
    assert len(tags.tags) == len(own.tags) or "<path" in page
    assert not any(key.startswith("on") for _, attrs in tags.tags for key in attrs)
    assert not any(tag in ("script", "img", "iframe", "a", "link", "object") for tag, _ in tags.tags)
    assert "49{%" not in page
    assert page.encode()


def test_a_completion_may_hold_any_line_end(tmp_path):
    page = render([make_run(tmp_path / "run", "one\u2028two\x85three")])
    assert "one\u2028two" in page


def test_a_hostile_name_of_a_learner_stays_in_its_attribute(tmp_path):
    folder = tmp_path / "curriculum"
    make_run(folder / "library-1", "word")
    (folder / "curriculum.json").write_text("[]")
    name = '"><script>x</script>'
    learner = {"name": name, "average": 0.5, "backward_transfer": 0.0, "forgetting": 0.0, "matrix": [[0.5]]}
    (folder / "accumulation.json").write_text(json.dumps({"tasks": ["$x_{"], "learners": [learner], "remarks": [name]}))
    page = render([folder])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 2


# ---- damaged run folders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.json", "eval.json", "metrics.jsonl", "traces.jsonl", "retention.json"])
@pytest.mark.parametrize("content", ["{", "[]", "3", '{"rows": 3}', "[" * 100_000, "\x00"])
def test_a_damaged_file_of_a_run_folder_is_named_in_one_line(name, content, dlr, tmp_path):
    run = make_run(tmp_path / "run", "word")
    (run / name).write_text(content)
    code, out, err = dlr("report", run, "--out", tmp_path / "page.html")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert name in err or "is not a run folder" in err
    assert not (tmp_path / "page.html").exists()


def test_a_manifest_without_what_is_read_is_refused_by_every_command(dlr, tmp_path):
    run = make_run(tmp_path / "run", "word")
    (run / "manifest.json").write_text("{}")
    other = shutil.copytree(run, tmp_path / "other")
    for arguments in (
        ["eval", run],
        ["reproduce", run],
        ["ask", run, "x"],
        ["run", "--resume", run],
        ["report", other],
    ):
        code, _, err = dlr(*arguments)
        assert code == 2
        assert "manifest.json is damaged: config: Field required" in err
