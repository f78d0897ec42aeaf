"""Growth on paper: every formula against a sum by hand, the project's own parts, or a run."""

import itertools
import json
from dataclasses import replace

import machine
import pytest
import scale
import scale_check
import scale_memory
import scale_page
import scale_runs
import torch
from dlr_plugins.assistants.small_gpt import POSITIONS, SmallGPT
from dlr_plugins.contrastive.bidirectional import Bidirectional
from dlr_plugins.decoders.teacher_forced import MANY_TOKENS, TOKENS
from dlr_plugins.spaces.kv import KVSpace
from documented import between
from scale_device import ETHERNET, H100, Device
from scale_methods import assistant_flops, gathered, grpo, ours
from scale_shapes import DIRECTIONS, LARGE, MIDDLE, SHAPES, SMALL, Learner, Shape
from scale_step import Phase, Step, Work

from dlr_core.config import RunConfig

TOY = Shape("toy", layers=2, hidden=4, heads=2, kv_heads=1, head_dim=3, ffn=5, vocab=7, tied=False)
TINY = Learner(latents=1, dim=1, width=1, layers=0, contrast=1)
WORK = Work(
    questions=2, chains=2, prompt=10, completion=4, search=2, fresh=1, tries=2, loops=2, replay=4, updates=2, right=0.5
)
SLOW = Device("slow", flops=10.0, single=5.0, memory=2.0, near=4.0, far=1.0, inside=2, number=2, positions=8)


def phase(step, name):
    (found,) = (part for part in step.phases if part.name == name)
    return found


# ---- sizes -------------------------------------------------------------------------------------------------------


def test_the_sizes_are_those_of_the_published_models():
    assert [shape.parameters for shape in SHAPES] == [134_515_008, 6_738_415_616, 68_976_648_192]


def test_a_toys_sizes_are_those_counted_by_hand():
    assert TOY.matrices == 2 * (4 * 6 + 6 * 4 + 2 * 4 * 3 + 3 * 4 * 5) == 264
    assert TOY.parameters == 264 + 2 * 7 * 4 + 5 * 4
    assert replace(TOY, tied=True).parameters == TOY.parameters - 28
    assert TOY.cached == 2 * 2 * 3
    assert TOY.attention_flops(10) == 2 * 2 * (2 * 3 * 10) * 2


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("latents", [1, 8, 32])
def test_what_learns_has_as_many_parameters_as_the_projects_own_parts(shape, latents):
    learner = Learner(latents=latents)
    options = SmallGPT.Options(width=learner.width, layers=learner.layers)
    with torch.device("meta"):
        assistant = SmallGPT(options, shape.hidden, latents, learner.dim)
        contrast = Bidirectional(Bidirectional.Options(width=learner.contrast), shape.hidden, latents, learner.dim)
    assert learner.assistant(shape) == sum(p.numel() for p in assistant.parameters())
    assert learner.contrastive(shape) == sum(p.numel() for p in contrast.parameters())
    whole = learner.trained(shape)
    assert whole == learner.assistant(shape) + learner.contrastive(shape) + learner.dim * shape.cached
    assert replace(learner, given=5).trained(shape) == whole - learner.assistant(shape) + 5


def test_the_chart_is_as_wide_as_what_a_decoder_caches(tiny_decoder):
    space = KVSpace(KVSpace.Options(num_latents=2, latent_dim=5), tiny_decoder)
    config = tiny_decoder.model.config
    shape = replace(
        TOY, layers=config.num_hidden_layers, kv_heads=config.num_key_value_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
    )  # fmt: skip
    assert Learner(dim=5).chart(shape) == space.chart_DW.numel()


@pytest.mark.parametrize("frozen", [True, False])
def test_activations_are_what_transformers_layers_keep_for_the_backward_pass(frozen):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = Shape("", 0, hidden=192, heads=4, kv_heads=2, head_dim=64, ffn=320, vocab=64, tied=True)

    def kept(layers, positions=32):
        config = LlamaConfig(
            hidden_size=192, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            intermediate_size=320, vocab_size=64,
        )  # fmt: skip
        model = LlamaForCausalLM(config).to(torch.bfloat16).requires_grad_(not frozen)
        own = {t.untyped_storage().data_ptr() for t in itertools.chain(model.parameters(), model.buffers())}
        alive = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                alive[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        embeds = torch.randn(1, positions, 192, dtype=torch.bfloat16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            states = model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state  # noqa: F841
        return sum(size for size, _ in alive.values()) / positions

    assert kept(3) - kept(2) == replace(shape, layers=1).activations(frozen=frozen)


def test_the_papers_defaults_are_the_projects():
    config, learner, work = RunConfig(), Learner(), Work()
    assert (learner.latents, learner.dim) == (8, KVSpace.Options().latent_dim)
    assert KVSpace.Options().num_latents == learner.latents
    assert (learner.width, learner.layers) == (SmallGPT.Options().width, SmallGPT.Options().layers)
    assert learner.contrast == Bidirectional.Options().width
    assert DIRECTIONS == POSITIONS
    assert (H100.positions, scale_runs.CPU_POSITIONS) == (MANY_TOKENS, TOKENS)
    default = (config.batch.questions, config.replay.search, config.replay.fresh, config.replay.chains)
    assert (work.questions, work.search, work.fresh, work.replay) == tuple(16 * count for count in default)
    same = (config.batch.samples, config.replay.tries, config.replay.updates)
    assert (work.chains, work.tries, work.updates) == same
    measured = (scale_runs.QUESTIONS, scale_runs.SEARCH, scale_runs.FRESH, scale_runs.REPLAY)
    assert measured == default
    assert same == (scale_runs.CHAINS, scale_runs.TRIES, scale_runs.UPDATES)
    assert (config.replay.capacity, config.replay.frontier) == (scale_memory.CAPACITY, scale_memory.FRONTIER)


# ---- a step ------------------------------------------------------------------------------------------------------


def test_a_toys_step_costs_what_it_does_by_hand():
    step = ours(TOY, TINY, WORK, 1)
    # 3 prompts of 11 positions; each sees 5.5 on average: 48 FLOPs a position in view.
    assert phase(step, "prefill") == Phase("prefill", 33 * (2 * 264 + 48 * 5.5), 2 * 264 * 2 + 33 * 12 * 2)
    # 8 completions of 4 tokens, in view 11 and 2; three batches of 4 passes; half of 4 own tokens, and the prompts'.
    flops = 32 * (2 * (264 + 28) + 48 * 13)
    assert phase(step, "decode") == Phase("decode", flops, 2 * (12 * 292 + (8 * 8 + 4 * 11 * 4) * 12))
    # 2 of the rollout and twice 4 remembered, 4 tokens each; weights read forward and back, three times.
    assert phase(step, "score") == Phase("score", 40 * (4 * 292 + 3 * 48 * 13), 2 * 3 * 292 * 2)
    trained = 526 + 12 + 15
    assert TINY.trained(TOY) == trained
    assert phase(step, "update") == Phase("update", 0.0, 2 * 28 * trained, single=True)
    assert step.reduced == 2 * 4 * trained
    assert step.gathered == 2 * 10 * (4 * 4 + 8) + 4 * (2 * 4 + 2 * 4 + 8 + 4 * 4 + 1)
    assert phase(step, "assistant").flops == 6 * 176 + 176 + 6 * 336


def test_a_toys_grpo_step_costs_what_it_does_by_hand():
    step = grpo(TOY, WORK, 1)
    # 8 completions behind prompts of 10, no latents: 14 positions, 7 in view; the head reads completions alone.
    assert phase(step, "train") == Phase("train", 112 * (6 * 264 + 3 * 48 * 7) + 32 * 6 * 28, 4 * 340 * 2)
    assert phase(step, "update") == Phase("update", 0.0, 28 * 340)
    assert (step.reduced, step.synced, step.gathered) == (2 * 340, 2 * 340, 0)


def test_adapters_are_all_that_a_step_on_them_updates_averages_and_sends():
    assert TOY.adapters(2) == 2 * 2 * (2 * (4 + 6) + 2 * (4 + 3) + 3 * (4 + 5)) == 244
    assert MIDDLE.adapters(16) == 39_976_960
    step = grpo(TOY, WORK, 1, adapters=2)
    assert phase(step, "train") == Phase("train", 112 * (4 * 264 + 6 * 244 + 3 * 48 * 7) + 32 * 4 * 28, 2 * 340 * 2)
    assert phase(step, "update") == Phase("update", 0.0, 28 * 244)
    assert (step.reduced, step.synced) == (2 * 244, 2 * 244)


def test_more_ranks_divide_arithmetic_but_not_the_reading_of_weights():
    one, four = ours(MIDDLE, Learner(), Work(), 1), ours(MIDDLE, Learner(), Work(), 4)
    for name in ("decode", "score", "assistant"):
        assert phase(four, name).flops == pytest.approx(phase(one, name).flops / 4)
    cache = 2 * 128 * 2 * (MIDDLE.matrices + MIDDLE.head)
    assert phase(four, "decode").bytes - cache == pytest.approx((phase(one, "decode").bytes - cache) / 4)
    assert (four.reduced, four.gathered) == (one.reduced, one.gathered)


def test_a_remembered_prompt_is_prefilled_again_on_ranks_that_come_to_need_it_and_once_on_each_at_most():
    # 3 new prompts a step; 1 searched and twice 4 replayed are drawn again.
    assert [WORK.refilled(ranks) for ranks in (1, 2, 4)] == [0, 3, 9 * 3 / 4]
    for ranks, prompts in ((2, 3), (4, (3 + 6.75) / 4)):
        read = phase(ours(TOY, TINY, WORK, ranks), "prefill").flops
        assert read == prompts * 11 * (2 * 264 + 48 * 5.5)
        assert phase(grpo(TOY, WORK, ranks), "prefill").flops == 3 / ranks * 10 * (2 * 264 + 48 * 5)


def test_a_frozen_decoder_is_sent_nothing_and_a_trained_one_all_its_weights():
    for shape in SHAPES:
        assert ours(shape, Learner(), Work(), 1).sent(1) == 0
        assert grpo(shape, Work(), 1).sent(1) == 2 * shape.parameters


def test_grpo_decodes_in_one_batch_where_ours_needs_one_each_for_rollout_and_search():
    weights = 128 * 2 * (MIDDLE.matrices + MIDDLE.head)
    for ranks, batches in ((1, 2), (2, 1), (4, 1)):
        mine, rival = ours(MIDDLE, Learner(latents=0), Work(), ranks), grpo(MIDDLE, Work(), ranks)
        spared = phase(mine, "decode").bytes - phase(rival, "decode").bytes
        assert spared == pytest.approx((2 - batches) * weights, abs=1e3)


def test_a_ring_sends_twice_what_it_averages_and_once_what_it_gathers_less_ones_own_part():
    step = Step([], reduced=100.0, gathered=40.0, synced=7.0)
    assert step.sent(1) == 7
    assert step.sent(4) == 2 * 75 + 30 + 7


def test_a_phase_takes_the_longer_of_arithmetic_and_reading():
    assert Phase("a", 100.0, 4.0).seconds(SLOW) == 10
    assert Phase("a", 100.0, 40.0).seconds(SLOW) == 20
    assert Phase("a", 100.0, 40.0, single=True).seconds(SLOW) == 20
    assert Phase("a", 200.0, 40.0, single=True).seconds(SLOW) == 40


def test_gradients_hide_behind_the_phase_named_and_nothing_else_does():
    phases = [Phase("train", 100.0, 0.0), Phase("update", 50.0, 0.0)]
    alone = Step(phases, reduced=64.0, gathered=8.0, synced=4.0)
    sync, gathering, reducing = 4 / 4, 4 / 4, 64 / 4
    assert alone.seconds(SLOW, 2) == 15 + sync + gathering + reducing
    assert replace(alone, overlapping="train").seconds(SLOW, 2) == 5 + max(10, reducing) + sync + gathering
    assert alone.seconds(SLOW, 4) > alone.seconds(replace(SLOW, inside=4), 4)


def test_no_gradient_goes_through_the_prompt_here_and_one_does_in_grpo():
    short, long = Work(prompt=100), Work(prompt=1000)
    weights = [phase(ours(MIDDLE, Learner(), work, 1), "score") for work in (short, long)]
    context = 900 * MIDDLE.attention_flops(1) * 3 * short.taught * short.completion
    assert weights[1].flops - weights[0].flops == pytest.approx(context)
    rival = [phase(grpo(MIDDLE, work, 1), "train").flops for work in (short, long)]
    assert rival[1] - rival[0] > 900 * short.decoded * 6 * MIDDLE.matrices


def test_wide_states_cost_more_to_gather_than_gradients_to_average():
    learner, work = Learner(), Work()
    assert gathered(LARGE, learner, work, work.prompt) > 2 * 4 * learner.trained(LARGE)
    assert assistant_flops(LARGE, learner, work) < 0.01 * ours(LARGE, learner, work, 1).flops


# ---- memory ------------------------------------------------------------------------------------------------------


def test_a_rank_holds_the_whole_model_and_its_share_of_the_chains():
    two = scale_memory.ours(TOY, TINY, WORK, 2, positions=8, kept=3)
    assert two.parts == {
        "weights": 2 * 340,
        "chains": 2 / 2 * (11 + 2 * 4) * 12 * 2,
        "activations": 8 * TOY.activations(frozen=True),
        "learning": 16 * 553,
        "kept prompts": 3 * 11 * (12 + 4) * 2,
    }
    assert scale_memory.Holding({"a": 72e9}).gpus == 1
    assert scale_memory.Holding({"a": 72e9, "b": 1.0}).gpus == 2


@pytest.mark.parametrize("shape", [MIDDLE, LARGE])
def test_grpo_fits_on_the_gpus_named_and_on_no_fewer(shape):
    count = scale_memory.grpo_gpus(shape, Work(), 1024)
    room = scale_memory.USABLE * scale_memory.GPU
    assert scale_memory.grpo(shape, Work(), count, 1024).total <= count * room
    assert scale_memory.grpo(shape, Work(), count - 1, 1024).total > (count - 1) * room


def test_adapters_need_room_for_themselves_and_for_what_they_read():
    lora, whole = scale_memory.adapted(TOY, WORK, 2, 8, 2).parts, scale_memory.ours(TOY, TINY, WORK, 2, 8, 0).parts
    assert (lora["weights"], lora["learning"]) == (whole["weights"], 16 * 244)
    assert lora["activations"] - whole["activations"] == 8 * 2 * (2 * 5 + 8 * 4)
    assert lora["chains"] == 2 / 2 * (10 + 2 * 4) * 12 * 2


def test_a_pass_that_fills_a_gpu_is_refused():
    with pytest.raises(ValueError, match="fewer than 8192 positions"):
        scale_memory.grpo_gpus(LARGE, Work(), 8192)


# ---- against runs ------------------------------------------------------------------------------------------------

RESULT = json.loads(scale.RESULT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("run", RESULT["runs"], ids=lambda run: f"{run['ranks']} ranks")
def test_measured_bytes_and_flops_are_those_on_paper_to_the_last_one(run):
    learner = Learner()
    assert run["parameters"] == {"assistant": learner.assistant(SMALL), "chart": learner.chart(SMALL)}
    assert scale_check.exact(run)
    last = run["steps"][-1]
    for key in ("main_flops", *(("reduced_bytes", "gathered_bytes") if run["ranks"] > 1 else ())):
        assert not scale_check.exact({**run, "steps": [{**last, key: last[key] + 1}]})


def test_every_step_but_the_first_is_kept_with_the_cpu_time_since_the_one_before(tmp_path, monkeypatch):
    def watched(command, metrics, said):
        metrics.parent.mkdir()
        metrics.write_text("".join(json.dumps({"seconds": step, "loss": 0.0}) + "\n" for step in (9, 2, 3)))
        (metrics.parent / "manifest.json").write_text('{"parameters": {"chart": 1}}')
        return [10.0, 14.0, 19.0]

    threads = torch.get_num_threads()
    monkeypatch.setattr(scale_runs, "watched", watched)
    monkeypatch.setattr(scale_runs, "SQUARE", 8)
    monkeypatch.setattr(machine, "MEMORY", 2**20)
    try:
        found = scale_runs.measure([2], 3, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert found["runs"][0]["steps"] == [{"seconds": 2, "cpu_seconds": 4.0}, {"seconds": 3, "cpu_seconds": 5.0}]
    assert found["flops"] > 0
    assert found["memory"] > 0


def test_a_runs_cpu_time_is_read_at_every_row_and_a_run_that_fails_is_told(tmp_path, monkeypatch):
    work = """
import subprocess, sys, time
busy = "import time\\nwhile time.process_time() < 0.4: pass\\nprint('done', flush=True)\\ntime.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
for wait in (lambda: None, child.stdout.readline):
    wait()
    print("{}", file=open("metrics", "a"), flush=True)
    time.sleep(1.0)
child.kill()
"""
    (tmp_path / "dlr_cli").mkdir()
    (tmp_path / "dlr_cli" / "__init__.py").touch()
    (tmp_path / "dlr_cli" / "app.py").write_text(work)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spent = scale_runs.watched([], tmp_path / "metrics", tmp_path / "said")
    assert len(spent) == 2
    assert spent[0] < spent[1]
    assert spent[1] >= 0.4
    (tmp_path / "dlr_cli" / "app.py").write_text("raise SystemExit('out of memory')")
    with pytest.raises(RuntimeError, match=r"(?s)--ranks 4.*exit code 1.*out of memory"):
        scale_runs.watched(["--ranks", "4"], tmp_path / "nothing", tmp_path / "said")


def test_one_rank_is_fitted_and_ranks_beyond_the_cores_gain_nothing_on_paper():
    two, four = {**RESULT, "cores": 2}, {**RESULT, "cores": 4}
    told = scale_check.predicted(two, "seconds")
    assert told[1] == pytest.approx(scale_check.measured(RESULT, 1, "seconds"))
    assert told[1] / 2 < told[2] < told[1]
    assert told[4] >= told[2]
    assert scale_check.predicted(four, "seconds")[4] < told[2]
    spent = scale_check.predicted(two, "cpu_seconds")
    assert spent == pytest.approx(scale_check.predicted(four, "cpu_seconds"))
    assert spent[1] == pytest.approx(scale_check.measured(RESULT, 1, "cpu_seconds"))
    assert spent[1] < spent[2] < spent[4]


def test_the_assistants_flops_on_paper_are_near_those_counted():
    assert 0.8 < scale_check.assistant_share(RESULT) < 1.2


def test_the_page_shows_what_the_formulas_and_the_committed_runs_give():
    page = scale_page.DOCUMENT.read_text(encoding="utf-8")
    for name, text in scale_page.tables(RESULT).items():
        assert between(page, name)[1] == text, name


def test_a_picture_and_a_step_are_drawn(tmp_path, capsys):
    scale_page.picture(tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    scale.main(["show", "--model", "70B", "--ranks", "2", "--questions", "4"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("prefill", "score", "train", "sent"))
    with pytest.raises(SystemExit):
        scale.main(["show", "--ranks", "8", "--questions", "4"])
    assert "multiple of --ranks=8" in capsys.readouterr().err
    assert ETHERNET.link(2) < H100.link(64) < H100.link(8)
