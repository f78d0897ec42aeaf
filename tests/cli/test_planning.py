"""``dlr run --dry-run``: settings on stdout, a memory plan on stderr."""

import json
import re
from collections import namedtuple

import dlr_plugins.decoders.outline as outlines
import pytest
import torch
from dlr_cli import planning
from dlr_plugins.decoders import packed_linear
from dlr_plugins.decoders.outline import Outline

from dlr_core import memory, records
from dlr_core.config import resolve
from dlr_core.errors import ModelError
from dlr_core.pipeline import build_trainer

SMALL = [
    "--set",
    "task.pool=40",
    "--set",
    "batch.samples=5",
    "--set",
    "replay.search=4",
    "--set",
    "decoder.dtype=float32",
]


def cells(err, part):
    (line,) = [line for line in err.splitlines() if line.startswith(f"│ {part} ")]
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def planned(dlr, model, *more):
    code, out, err = dlr("run", "--main-model", model, "--dry-run", *SMALL, *more)
    assert code == 0
    assert json.loads(out)["batch"]["questions"]
    return err


def test_a_plan_names_what_is_held_every_phase_and_what_fits(dlr, tiny_model, monkeypatch):
    monkeypatch.setattr(Outline, "available", lambda self: 10**12)
    err = planned(dlr, tiny_model)
    assert [len(cells(err, part)) for part in ("main model", "chains", "together")] == [6, 6, 6]
    assert "of 1000.00 GB that are free: fits" in err
    assert "T = ≥ 64 (set: 8)" in err
    assert "not counted" not in err
    assert "assumed" not in err


def test_with_less_memory_less_fits_and_with_too_little_it_says_so(dlr, tiny_model, monkeypatch):
    monkeypatch.setattr(Outline, "available", lambda self: 10**6)
    err = planned(dlr, tiny_model)
    assert "does NOT fit" in err
    assert "K = 0 (set: 5), B = 0 (set: 4), T = 0 (set: 8)" in err


def test_ranks_share_a_step_and_the_machine(dlr, tiny_model, monkeypatch):
    monkeypatch.setattr(Outline, "available", lambda self: 8 * 10**9)
    alone, shared = planned(dlr, tiny_model), planned(dlr, tiny_model, "--ranks", 2)
    assert "of 8.00 GB" in alone
    assert "of 4.00 GB" in shared
    assert "each of 2 ranks" in " ".join(shared.split())  # a long path may wrap the title
    assert "B = " in shared
    assert "(set: 2)" in shared


def test_what_a_task_or_a_part_does_not_give_is_assumed_and_said(dlr, tiny_model, monkeypatch):
    monkeypatch.setattr(planning, "calibration_questions", lambda task: [task.no_such_thing])
    err = planned(dlr, tiny_model)
    assert "assumed: prompts of 64 tokens (AttributeError" in err
    err = planned(dlr, tiny_model, "--assistant", "softcot", "--set", "assistant.backbone=/nowhere/at/all")
    assert "not counted: parameters of assistant 'softcot'" in err


def test_a_space_that_copies_prompts_holds_one_for_every_chain(dlr, tiny_model):
    shared, copied = (cells(planned(dlr, tiny_model, "--space", name), "chains")[3] for name in ("kv", "steer"))
    assert float(copied) > float(shared) > 0


def test_a_plan_follows_what_a_run_does_without(dlr, tiny_model, monkeypatch):
    monkeypatch.setattr(packed_linear, "LEAST_BYTES", 0)
    for setting, part, place in (
        ("decoder.packed=false", "packed copies", 0),
        ("decoder.scored_at_once=16", "activations", 3),
        ("replay.cache_mb=0.01", "replay and frontier", 0),
    ):
        whole = ("--set", "replay.cache_on=memory")
        all_of_it, lean = planned(dlr, tiny_model, *whole), planned(dlr, tiny_model, *whole, "--set", setting)
        less, more = (float(cells(err, part)[place].replace(",", "") or 0) for err in (lean, all_of_it))
        assert less < 0.5 * more, setting
    assert less == 0.01


def test_without_filler_a_plan_has_shorter_prompts(dlr, tiny_model):
    seven = ("--set", "space.num_latents=7", "--set", "replay.cache_on=memory")
    filled, closing = planned(dlr, tiny_model, *seven), planned(dlr, tiny_model, *seven, "--set", "space.filler=")
    held, less = (float(cells(err, "replay and frontier")[0]) for err in (filled, closing))
    assert 0 < less < held


def test_prompts_on_a_disk_take_room_there_and_not_in_memory(dlr, tiny_model, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda path: usage(4 * 10**9))
    held = cells(planned(dlr, tiny_model, "--set", "replay.cache_on=memory"), "replay and frontier")[0]
    err = planned(dlr, tiny_model, "--set", "replay.capacity=10000")
    assert float(held.replace(",", "")) > 0
    assert cells(err, "replay and frontier")[0] == "0"
    size, room = re.search(
        r"prompts of replay and frontier: (\S+) GB on disk, in \S+, of (\S+) GB .* there$", err, re.M
    ).groups()
    assert float(size) > 0
    assert room == "4.00"
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda path: usage(10))
    assert "NOT enough" in planned(dlr, tiny_model, "--set", "replay.capacity=10000")
    assert "on disk" not in planned(dlr, tiny_model, "--set", "replay.chains=0")


def test_a_saved_space_has_a_plan(dlr, tiny_model, tmp_path):
    err = planned(dlr, tiny_model, "--space", tmp_path)
    assert "not counted: parameters of space" in err
    assert "together" in err


def test_a_backend_without_an_outline_has_no_plan(dlr):
    given = ["--set", "decoder.name=remote", "--set", "space.name=input", "--set", "space.chart=random"]
    given += ["--estimator", "score", "--set", "replay.chains=0"]
    code, out, err = dlr("run", "--dry-run", *given)
    assert (code, err) == (0, "memory: no plan for decoder 'remote'\n")
    assert json.loads(out)["decoder"]["name"] == "remote"


def test_a_damaged_model_has_no_plan_and_one_line_says_why(dlr, tmp_path):
    (tmp_path / "config.json").write_text("{")
    err = planned(dlr, tmp_path)
    assert err.startswith("memory: no plan: ")
    assert err.count("\n") == 1


def test_an_outline_has_the_sizes_of_the_model_that_would_be_loaded(host, tiny_model, tiny_decoder):
    config = resolve({"decoder": {"model": str(tiny_model)}}, host)
    factory = host.find("decoder", "hf").factory
    outline = factory.outline(factory.Options(model=str(tiny_model), dtype="float32"))
    cache = tiny_decoder.prefill(["Hi"], [], [], 0)
    assert all(part.is_meta for part in outline.model.parameters())
    assert outline.kv_sizes == tiny_decoder.kv_sizes
    assert outline.size.cache_width == sum(2 * heads * width for heads, width in tiny_decoder.kv_sizes)
    assert outline.size.weights == sum(part.nbytes for part in tiny_decoder.model.parameters()) + 2 * 8 * 4
    assert outline.prompt_ids("Hi") == tiny_decoder.prompt_ids("Hi")
    gate_and_up = 2 * 96  # what comes between them is found again
    assert (outline.size.inner, outline.size.heads, outline.size.head_width) == (gate_and_up, 4, 16)
    assert cache.states_NSH.shape[2] == outline.hidden_size
    assert config.decoder.model == str(tiny_model)


def test_few_prompts_are_as_few_for_the_plan_as_for_the_decoder():
    assert memory.FEW == records.FEW


def test_an_activation_estimate_is_what_a_pass_saves(host, tiny_model):
    """Autograd's own account of one pass, weights left out, within a tenth."""
    from dlr_plugins.decoders import teacher_forced

    from dlr_core.memory import RunSize, pass_bytes

    values = {"decoder": {"model": str(tiny_model), "dtype": "float32", "device": "cpu"}, "loggers": []}
    values |= {"task": {"pool": 40}, "batch": {"questions": 2, "samples": 2}, "replay": {"chains": 0}}
    engine = build_trainer(resolve(values, host), host).env.engine
    decoder, space = engine.decoder, engine.space
    weights = {part.untyped_storage().data_ptr() for part in decoder.model.parameters()}
    saved, kept = {}, []
    score = teacher_forced._Work.score

    def watched(self, rows, leaves):
        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
                kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return score(self, rows, leaves)

    cache = engine.prefill([engine.task.item("train", number).question for number in range(2)])
    latents = torch.zeros(8, space.num_latents, space.latent_dim, requires_grad=True)
    ready = engine.inject(cache, latents, torch.arange(2).repeat_interleave(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_forced._Work, "score", watched)
        decoder.log_prob(ready, torch.full((8, 6), 30), torch.ones(8, 6))
    factory = host.find("decoder", "hf").factory
    size = factory.outline(factory.Options(model=str(tiny_model), dtype="float32", device="cpu")).size
    run = RunSize(
        questions=2, samples=4, decodes=4, completions=1, prompt=cache.mask_NS.shape[1] - space.num_latents,
        latents=space.num_latents, latent_dim=space.latent_dim, pending=1, tokens=6, trained=0,
    )  # fmt: skip
    assert pass_bytes(size, run, 8, 2) == pytest.approx(sum(saved.values()), rel=0.1)


def test_a_model_that_is_not_here_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("DLR_CACHE", str(tmp_path))
    monkeypatch.setattr(outlines.smollm2, "folder", lambda: pytest.fail("fetched"))
    for name in ("smollm2-135m", "nobody/no-such-model"):
        with pytest.raises(ModelError, match="main model not here yet"):
            Outline(name, "cpu", "auto", copies_prompts=False, spread=False)
    assert list(tmp_path.iterdir()) == []
