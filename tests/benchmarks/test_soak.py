"""Hundreds of episodes leave nothing behind: no open file, no thread, no process."""

import soak


def test_episodes_leave_no_file_thread_or_process_behind(tiny_model):
    found = soak.play(tiny_model, 480)
    assert found["episodes"] >= 480
    assert found["after"] == found["before"]
    assert found["memory_mb"]["last"] - found["memory_mb"]["half"] < 20


def test_a_run_leaves_no_file_thread_or_process_behind(tiny_model, tmp_path):
    found = soak.train(tiny_model, tmp_path / "run", 0.05)
    assert found["steps"] >= 1
    assert found["after"] == found["before"]


def test_what_stays_behind_is_seen(tmp_path):
    gauge = soak.Gauge()
    before = gauge.counts()
    with (tmp_path / "open").open("w"):
        assert gauge.counts()["files"] == before["files"] + 1
    for at in range(10):
        gauge.samples.append((at, 100.0 + 2 * at))
    assert abs(gauge.slope() - 2.0) < 1e-6
