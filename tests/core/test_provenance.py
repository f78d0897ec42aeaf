"""Which code a run was made with."""

import shutil
import subprocess

import pytest

from dlr_core.provenance import code, differences

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(root, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", root, *who, *arguments], check=True, capture_output=True, text=True).stdout


def test_code_is_the_commit_and_what_was_changed_since(tmp_path):
    assert code(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert code(tmp_path) is None
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "file").write_text("1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    assert code(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD").strip(), "changes": None}
    (tmp_path / "part" / "file").write_text("2")
    one = code(tmp_path)["changes"]
    (tmp_path / "part" / "file").write_text("3")
    assert one
    assert code(tmp_path)["changes"] not in (None, one)
    assert code(tmp_path / "part") is None  # a package inside another repository is not that repository's code


def test_differences_of_code_are_named():
    base = {"dlr": "1", "packages": {}, "plugins": {}, "machine": {}, "main_model": {"digest_before": "x"}}
    clean, other = {"commit": "a" * 40, "changes": None}, {"commit": "b" * 40, "changes": None}
    dirty = {"commit": "a" * 40, "changes": "f" * 16}
    assert differences({**base, "code": clean}, {**base, "code": clean}) == []
    assert differences({**base, "code": clean}, {**base, "code": other}) == [
        "code: commit was aaaaaaaaaaaa, is bbbbbbbbbbbb"
    ]
    assert differences({**base, "code": dirty}, {**base, "code": clean}) == [
        "code: uncommitted changes were ffffffffffffffff, are none"
    ]
    assert differences({**base, "code": None}, {**base, "code": clean}) == [
        "code: the manifest names no commit, so only versions can be compared"
    ]
    assert differences({**base, "code": clean}, {**base, "plugins": {"acme": "acme 1"}, "code": clean}) == [
        "plugins: acme was absent, is acme 1"
    ]
