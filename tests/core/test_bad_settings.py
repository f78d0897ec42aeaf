"""Bad settings, generated: every problem is named at once, with its path and the nearest valid name."""

import pytest
from attacks import setting_paths
from hostile import assignment, misspelt, settings_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlr_core import PluginHost
from dlr_core.assignments import COMPONENTS, parse_assignment, read_toml
from dlr_core.config import resolve
from dlr_core.errors import ConfigError
from dlr_core.sweep import expand, parse_part

HOST = PluginHost.from_entry_points()
PATHS = [path for path in setting_paths() if "." in path and path.partition(".")[0] not in (*COMPONENTS, "task")]
PARTS = {kind: HOST.names(kind) for kind in COMPONENTS}
FEW = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[*HealthCheck])


def problems_of(call, *arguments):
    """The lines with which something is refused; None if it is not."""
    try:
        call(*arguments)
    except ConfigError as error:
        return error.problems
    return None


@FEW
@given(st.lists(st.sampled_from(PATHS), min_size=1, max_size=4, unique=True), st.data())
def test_every_misspelt_setting_is_named_with_a_nearest_name(right, data):
    tree: dict = {}
    paths = []
    for path in right:
        section, _, key = path.partition(".")
        known = [other.partition(".")[2] for other in PATHS if other.startswith(f"{section}.")]
        name = data.draw(misspelt([key]).filter(lambda name, known=known: name and name not in known))
        tree.setdefault(section, {})[name] = 1
        paths.append(f"{section}.{name}")
    wrong = data.draw(misspelt(PARTS["estimator"]).filter(lambda name: name not in PARTS["estimator"] and name))
    with pytest.raises(ConfigError) as caught:
        resolve({**tree, "estimator": wrong}, HOST)
    text = "\n".join(caught.value.problems)
    assert f"no estimator named {wrong!r}" in text
    assert all(f"config: no option named {path!r}; did you mean " in text for path in paths)


@FEW
@given(settings_tree(PATHS, {**PARTS, "env": ["dlr/ChainSum-v0"]}))
def test_settings_are_resolved_or_refused_with_short_lines(tree):
    found = problems_of(resolve, tree, HOST)
    assert found is None or found
    assert all(0 < len(line) < 4000 for line in found or ())


@FEW
@given(assignment(PATHS))
def test_an_assignment_is_read_or_refused(text):
    for line in problems_of(parse_assignment, text) or ():
        assert line.startswith("--set: expected key=value, got ")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("1\nsteps = 3", "1\nsteps = 3"),
        ("[" * 5000, "[" * 5000),
        ("9" * 5000, "9" * 5000),
        ("2021-99-99", "2021-99-99"),
    ],
)
def test_what_is_not_one_toml_value_is_text(raw, value):
    assert parse_assignment(f"task.name={raw}") == (["task", "name"], value)


@pytest.mark.parametrize(
    "content", [b"a = " + b"9" * 5000, b"a = " + b"[" * 5000, b"a = 2021-99-99", b"\xff", b"a = '\\ud800'", b"=", b"\0"]
)
def test_a_file_that_is_no_toml_is_one_line(content, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        resolve(read_toml(path), HOST)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"optim": {"lr": float("nan")}}, "optim.lr: expected a finite number, got nan"),
        ({"minutes": float("inf")}, "minutes: expected a finite number, got inf"),
        ({"seed": 2**64}, "seed: expected a number within ±2**53"),
        ({"assistant": {"width": 10**30}}, "assistant 'small-gpt': width: expected a number within"),
        ({"init_from": "a\0b"}, "init_from: expected text"),
        ({"batch": {"questions": 60000, "samples": 60000}}, "batch.questions × batch.samples"),
        ({"task": {"max_digit": 3}}, "no option of chain_sum named 'max_digit'; did you mean 'max_digits'?"),
        ({"env": "dlr/Reasoning-v0"}, "dlr/Reasoning-v0 needs a task"),
        ({"env": "dlr/Reasoning-v0", "task": {"name": "reasoning-gym:gdc"}}, "did you mean 'gcd'?"),
        ({"env": "dlr/GSM8K-v0", "task": {"paht": "x"}}, "did you mean 'path'?"),
        ({"decoder": {"name": "hff"}, "seed": -1}, "no decoder named 'hff'; did you mean 'hf'?"),
        ({"space": "~no-such-user"}, "no space named '~no-such-user'"),
        ({"space": "a" * 400}, "no space named "),
    ],
)
def test_settings_that_no_run_could_have_are_named(tree, expected):
    with pytest.raises(ConfigError) as caught:
        resolve(tree, HOST)
    assert expected in str(caught.value)


def test_a_name_that_is_none_and_options_that_are_no_table_are_refused():
    for name in (3, None, [], {}):
        with pytest.raises(ConfigError, match="expected a name"):
            HOST.create("reward", name)
    with pytest.raises(ConfigError, match="expected a table of options"):
        HOST.create("reward", "dual", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected a table of settings"):
        resolve([], HOST)  # type: ignore[arg-type]


def test_sweeps_that_would_be_endless_or_share_a_folder_are_refused():
    with pytest.raises(ConfigError, match="expected 1 to 10000 runs"):
        expand({"grid": {f"a{n}": list(range(100)) for n in range(5)}})
    with pytest.raises(ConfigError, match="share the folder a-b-seed0"):
        expand({"variants": [{"name": "a b"}, {"name": "a-b"}]})
    for text in ("²/3", "9" * 5000 + "/1", "1/", "0/2", "3/2"):
        with pytest.raises(ConfigError, match="--part: expected i/n"):
            parse_part(text)
