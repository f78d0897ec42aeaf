"""What ends a run, or keeps one from going on: a main model that has changed, another one, nothing finite any more."""

from types import SimpleNamespace

import pytest
from dlr_cli.guarding import require_finite, require_unchanged
from dlr_cli.resuming import go_on

from dlr_core.config import resolve
from dlr_core.errors import ModelError, PluginError

NOW = {"digest": "b" * 64, "device": "cpu", "dtype": "float32"}


def manifest(digest: str = "b" * 64, **more: str) -> dict:
    return {"main_model": {"digest_before": digest, "device": "cpu", "dtype": "float32", **more}, "config": {}}


def test_a_changed_main_model_ends_the_run_and_parts_from_elsewhere_are_named(host):
    config = resolve({"env": "dlr/Toy-v0"}, host)
    require_unchanged("a" * 64, "a" * 64, config, host)
    with pytest.raises(
        PluginError, match=r"digest a{12}…, now b{12}….*other plugins: env 'dlr/Toy-v0' of plugin 'toy'"
    ):
        require_unchanged("a" * 64, "b" * 64, config, host)
    with pytest.raises(PluginError, match=r"parts from other plugins: none$"):
        require_unchanged("a" * 64, "b" * 64, resolve({}, host), host)


def test_a_run_goes_on_with_its_own_main_model_only(host, tmp_path, capsys):
    config = resolve({}, host)
    with pytest.raises(ModelError, match=r"trained on another main model: digest a{12}…, this one's is b{12}…"):
        go_on(None, tmp_path, manifest("a" * 64), config, NOW)
    assert go_on(None, tmp_path, manifest("a" * 64, dtype="bfloat16"), config, NOW) is None
    assert "warning: the main model is not where it was (dtype bfloat16 then, float32 now)" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_begins_again_aloud(host, tmp_path, capsys):
    assert go_on(None, tmp_path, manifest(), resolve({}, host), NOW) is None
    assert capsys.readouterr().err == (
        f"warning: {tmp_path} was ended before its first checkpoint: it begins again at step 1\n"
    )


def test_updates_left_out_are_said(tmp_path, capsys):
    updates = SimpleNamespace(stuck=False, skipped=2, in_row=1, reason="the loss is nan")
    require_finite(SimpleNamespace(updates=updates, step_number=7), tmp_path)
    assert capsys.readouterr().err == "warning: step 7: 2 updates left out (the loss is nan)\n"


def test_the_best_checkpoint_is_for_measuring(dlr):
    expected = "error: --best chooses what is measured: no --retention or --saved\n"
    assert dlr("eval", "run", "--best", "--saved") == (2, "", expected)
