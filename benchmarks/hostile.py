"""Generators of bad input (Hypothesis strategies): what people mistype, what files hold after an accident, what a
stranger would write. They know nothing of the project but its names."""

import json
from typing import Any

from hypothesis import strategies as st

TEXT = st.text(max_size=20)
NASTY = st.sampled_from(
    ["", " ", "\0", "\ud800", "\x1b[31m", "\u202eabc", "~nobody/x", "../../etc", "a" * 300, "$x$", "[/bold]", "{{7*7}}",
     "__import__('os').system('true')", "nan", "-inf", "1e999", "9" * 5000, "true", "'", '"', "\\", "%s", "-", "--help"]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, -1, 0]),
    st.floats(allow_nan=True, allow_infinity=True),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, NASTY)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


@st.composite
def misspelt(draw: st.DrawFn, names: list[str]) -> str:
    """A name with a letter dropped, doubled, swapped or replaced."""
    name = draw(st.sampled_from(names))
    place = draw(st.integers(0, max(len(name) - 1, 0)))
    before, char, after = name[:place], name[place : place + 1], name[place + 1 :]
    return draw(
        st.sampled_from([before + after, before + char * 2 + after, before + after[:1] + char + after[1:],
                         f"{before}x{after}", name.upper(), f"{name}s"])
    )  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes cut off, flipped, left out, repeated or put in, one to three times."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 8, 100, 4096]))
        kind = draw(st.sampled_from(["cut", "flip", "drop", "repeat", "insert", "zero"]))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif kind == "drop":
            data = data[:at] + data[at + length :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + length] * 2 + data[at + length :]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=12)) + data[at:]
        else:
            data = data[:at] + b"\0" * length + data[at + length :]
    return data


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, but its root."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in inner for found in ((*path, key), *places(part, (*path, key)))]


@st.composite
def mangled(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three of its parts left out, or replaced by something else."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        found = places(value)
        if not found:
            return draw(JUNK)
        *way, last = draw(st.sampled_from(found))
        holder = value
        for key in way:
            holder = holder[key]
        if draw(st.booleans()):
            holder[last] = draw(JUNK)
        else:
            del holder[last]
    return value


@st.composite
def bad_json(draw: st.DrawFn, value: Any) -> bytes:
    """A JSON file that is damaged as bytes, or as a value, or something else altogether."""
    kind = draw(st.sampled_from(["bytes", "value", "value", "value", "junk", "deep"]))
    if kind == "bytes":
        return draw(damaged(json.dumps(value).encode()))
    if kind == "deep":
        return b"[" * 100_000
    return json.dumps(draw(mangled(value)) if kind == "value" else draw(JUNK)).encode()


@st.composite
def settings_tree(draw: st.DrawFn, paths: list[str], components: dict[str, list[str]]) -> dict[str, Any]:
    """Settings of which some are misspelt, of the wrong type, or name what there is not."""
    tree: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 5))):
        path = draw(st.sampled_from(paths) | misspelt(paths) | TEXT)
        name = draw(st.sampled_from(sorted(components)))
        value = draw(JUNK | st.sampled_from(components[name]) | misspelt(components[name]))
        *way, last = path.split(".")[:8]
        holder = tree
        for key in way:
            inner = holder.get(key)
            holder[key] = holder = inner if isinstance(inner, dict) else {}
        holder[last] = value
    if draw(st.booleans()):
        tree[draw(st.sampled_from([*components, "task", "loggers", "batch"]))] = draw(JUNK)
    return tree


@st.composite
def assignment(draw: st.DrawFn, paths: list[str]) -> str:
    """What somebody might give to --set."""
    key = draw(st.sampled_from(paths) | misspelt(paths) | TEXT | st.just(".".join("a" * 40)))
    value = draw(
        NASTY | TEXT | NUMBERS.map(lambda n: f"{n:.6g}" if isinstance(n, float) else str(n)[:4000])
        | st.sampled_from(["[" * 5000, "{a=1}", "[1, 'a']", "2021-99-99", "1\nsteps = 3", "'''", "= 3", "0x10"])
    )  # fmt: skip
    return draw(st.sampled_from([f"{key}={value}", f"{key}={value}", key, f"={value}"]))


@st.composite
def jsonl(draw: st.DrawFn, row: dict[str, Any]) -> bytes:
    """A data file: good rows, mangled ones, no JSON, no UTF-8, lines without end, nothing."""
    odd = st.one_of(
        mangled(row).map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=30),
        damaged(json.dumps(row).encode()),
        st.sampled_from([b"", b"[1, 2]", b"\xff\xfe", b"null", b'{"question": "\\ud800", "answer": "1"}',
                         b"[" * 100_000, b'{"question": "q", "answer": ' + b"9" * 5000 + b"}",
                         b'{"question": "how many?", "answer": "#### 1e999999999"}',
                         b'{"question": "' + b"long " * 250_000 + b'", "answer": "1"}']),
    )  # fmt: skip
    lines = draw(st.lists(odd | st.just(json.dumps(row).encode()), max_size=4))
    return draw(st.sampled_from([b"\n", b"\r\n"])).join(lines)


COMPLETIONS = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*"0123456789.,- e/}^%(", "\u2212", "E+", "\\frac{"])).map("".join),
    st.sampled_from(["\n" * 50_000, "9" * 100_000, "1," * 50_000, "-" * 50_000, "= - " * 20_000, "1e999"]),
)  # fmt: skip
BOMBS = (
    r"\boxed{9**9**9**9}", r"\boxed{9^{9^{9^{9}}}}", "9**9**9**9 = 2^3", r"$\frac{(10^7)!}{2}$", r"\boxed{1000000!!}",
    r"\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}", r"\frac{1}{" * 800 + "3" + "}" * 800, "1/2 " * 300_000,
    r"\boxed{" + "x^" * 2000 + "2}", r"\int_0^1 \frac{\sin(x^{99})}{x^{77}+1} dx = \boxed{\prod_{i=1}^{10^9} i}",
    r"\boxed{\sqrt{" * 500 + "2" + "}}" * 500, r"$10^{10^{10}}$", "\\" * 20_000, r"\boxed{\sum_{n=1}^{10^{12}} n^{n}}",
)  # fmt: skip
"""Expressions that never come to an end, or fill the memory on the way."""
CODE = (
    "__import__('os').system('touch CANARY')", "open('CANARY', 'w').close()", "exit()", "().__class__.__bases__[0]",
    "[open('CANARY', 'w')]", "lambda: 0", "x.__class__", "Symbol('x').__init__.__globals__",
    "f'{open(\"CANARY\",\"w\")}'", "9**9**9**9",
    "factorial(10**8)", "(" * 500 + "1" + ")" * 500, "exp(" * 200 + "x" + ")" * 200, "x**(10**10)",
    "-" * 1500 + "1", "print(1)", "0 if open('CANARY','w') else 1", "[*range(10**12)]", "'a'*10**12", "1_000.__class__",
)  # fmt: skip
"""Text of a model that would do something if it were evaluated; CANARY stands for a file that must not appear."""

ACTIONS = ("nan", "inf", "text", "object", "complex", "bool", "dates", "shape", "ragged", "none", "table", "scalar",
           "huge", "gradient", "bytes")  # fmt: skip
