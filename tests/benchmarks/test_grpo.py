"""TRL's side of the comparison, run for real on a tiny model, in a process of its own: its imports warn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DRIVER = """
import io, json, sys, tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import grpo, memory_side
from curves import Prober
from dlr_cli.host import load_host
from dlr_core.config import resolve
from dlr_core.errors import ConfigError
from dlr_core.evaluate import Evaluator
from dlr_core.pipeline import make_engine
from dlr_core.questions import distinct_items
from dlr_plugins.decoders import packed_linear

packed_linear.LEAST_BYTES = 0  # as of a model large enough to be packed
host, found = load_host(), {}


def in_place(self_shape, a_shape, b_shape, out_shape=None, **more):  # which PyTorch does not count by itself
    return 2 * a_shape[0] * a_shape[1] * b_shape[1]


PRODUCTS = {torch.ops.aten.addmm_: in_place}


def weights(model):
    return {
        name.replace(".base_layer", ""): tensor.clone()
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }


for setting, device in (("full", "cpu"), ("lora", "auto")):  # told apart, so that each has a model of its own
    config = resolve({
        "steps": 3, "minutes": None, "loggers": [], "task": {"pool": 40}, "optim": {"warmup": 0},
        "decoder": {"model": sys.argv[1], "device": device, "max_new_tokens": 4},
        "space": {"name": "kv", "num_latents": 2, "latent_dim": 4, "anchor": "=", "filler": " "},
        "batch": {"questions": 2, "samples": 4},
    }, host)
    engine = grpo.engine_to_train(config, host)
    decoder, items = engine.decoder, distinct_items(engine.task, "test", 5)
    own = [sample.completion for sample in Evaluator(engine).under_prompt(items, "=").samples]
    before, start = weights(decoder.model), decoder.fingerprint()
    prober = Prober(items, 3)
    with tempfile.TemporaryDirectory() as folder:
        trainer, tally, answer = grpo.make_trainer(
            engine, config, setting, 1e-2, Path(folder), prober=prober, micro={"full": None, "lora": 4}[setting]
        )
        first = [sample.completion for sample in answer(items)]
        asked, probe = tally.flops, prober.take
        prober.take = lambda *args, **more: None
        tally.flops = tally.completions = 0
        true_reward, engine.reward = engine.reward, lambda sample: float(sum(map(ord, sample.completion)) % 7)
        with FlopCounterMode(display=False, custom_mapping=PRODUCTS) as mode:
            trainer.train()
        counted = {str(op): count for op, count in mode.get_flop_counts()["Global"].items()}
        prober.take, engine.reward = probe, true_reward
    end = int(decoder.end_ids[0])
    gold = engine.task.gold_text(items[0])
    rows = [[*decoder.encode(gold), end], decoder.encode(gold), [5, end]]
    judged = grpo.judged(engine, [items[0]] * 3, [gold, gold, "no"], rows)
    after = weights(decoder.model)
    found[setting] = {
        "flops": tally.flops, "counted": counted["aten.mm"] + counted["aten.addmm_"], "asked": asked,
        "completions": tally.completions, "steps": trainer.state.global_step, "first": first, "own": own,
        "moved": [name for name in before if not torch.equal(before[name], after[name])], "all": len(before),
        "adapters": any(bool(p.any()) for n, p in decoder.model.named_parameters() if "lora_B" in n),
        "rewards": [engine.reward(sample) for sample in judged],
    }

rounds = []


def ask(engine, host, ways, count=0):
    rounds.append({way: [sample.completion for sample in how(engine)(items)] for way, how in ways.items()})
    return {"": {way: [] for way in ways}}


def rewarded(config, host):
    fresh = make_engine(config, host)
    fresh.reward = lambda sample: float(sum(map(ord, sample.completion)) % 7)
    return fresh


true_engine = grpo.engine_to_train
grpo.other_tasks.ask, grpo.engine_to_train = ask, rewarded
for setting, at_once in (("full", 7), ("lora", 8)):  # settings that no engine above has: its model has not moved yet
    own = {"packed": False, "dtype": "float32", "scored_at_once": at_once}
    unmoved = config.model_copy(update={"decoder": config.decoder.model_copy(update=own)})
    with tempfile.TemporaryDirectory() as folder:
        learned = grpo.learn(unmoved, host, setting, 1e-1, Path(folder), questions=3, probes=1)
    found[setting]["learned"], found[setting]["rounds"] = learned, rounds[-3:]
grpo.engine_to_train = true_engine

packed = make_engine(config, host)
try:
    grpo.make_trainer(packed, config, "full", 1e-2, Path())
except ConfigError as error:
    found["refused"] = str(error)

with redirect_stdout(io.StringIO()) as text:
    sys.argv = ["memory_side.py", "grpo-lora", "--steps", "1", "--main-model", sys.argv[1]]
    sys.argv += ["--set", "task.pool=40", "--set", "space.anchor==", "--set", "decoder.max_new_tokens=3"]
    memory_side.main()
found["memory"] = json.loads(text.getvalue().strip().splitlines()[-1])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tiny_model):
    paths = os.pathsep.join([str(BENCHMARKS), *sys.path])
    env = {**os.environ, "PYTHONPATH": paths, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tiny_model)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("setting", ["full", "lora"])
def test_it_is_asked_as_our_decoder_is(found, setting):
    assert found[setting]["first"] == found[setting]["own"]
    assert len(set(found[setting]["own"])) > 1


def test_its_flops_are_those_that_pytorch_counts(found):
    assert found["full"]["flops"] == found["full"]["counted"]
    assert found["full"]["asked"] > 0
    # nothing flows back into the frozen embeddings, which is saved in the first of (here three) layers
    assert 0.9 * found["lora"]["flops"] < found["lora"]["counted"] <= found["lora"]["flops"]


@pytest.mark.parametrize("setting", ["full", "lora"])
def test_its_steps_are_limited_and_its_completions_counted(found, setting):
    assert found[setting]["steps"] == 3
    assert found[setting]["completions"] == 3 * 2 * 4


def test_full_fine_tuning_moves_weights_and_lora_leaves_them(found):
    assert len(found["full"]["moved"]) > found["full"]["all"] / 2
    assert found["lora"]["moved"] == []
    assert found["lora"]["adapters"]


def test_a_model_that_multiplies_by_copies_of_its_weights_is_refused(found):
    assert "packed" in found["refused"]


def test_its_reward_is_that_of_the_environment(found):
    assert found["full"]["rewards"] == pytest.approx([1.1, 1.0, 0.0])


@pytest.mark.parametrize("setting", ["full", "lora"])
def test_it_is_asked_of_other_tasks_before_and_after(found, setting):
    before, off, on = found[setting]["rounds"]
    assert list(found[setting]["learned"]["others"][""]) == ["before", "prompt", "off", "on"]
    assert before["before"] != before["prompt"] != on["on"]
    assert (before["before"] == off["off"]) == (setting == "lora")  # an adapter can be switched off
    assert [point["steps"] for point in found[setting]["learned"]["curve"]] == [0, 3]


def test_its_memory_is_measured(found):
    assert found["memory"]["side"] == "grpo-lora"
    assert found["memory"]["peak"] > 0
