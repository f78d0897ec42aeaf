"""Training baselines: a rival learns, under the limits and the schedule of a run."""

import numpy as np
import pytest
import torch

from dlr_core.config import resolve
from dlr_core.pipeline import make_engine
from dlr_core.supervised import SupervisedTrainer

pytest.importorskip("peft")


def trainer_for(host, tiny_model, *, method="prefix", lr=0.05, **values):
    plan = {"env": "dlr/Toy-v0", "decoder": {"model": str(tiny_model)}, "steps": 40, "minutes": None, **values}
    config = resolve(plan, host)
    engine = make_engine(config, host)
    torch.manual_seed(config.seed)
    baseline = host.create("baseline", method, {"num_virtual_tokens": 4}, decoder=engine.decoder)
    return SupervisedTrainer(config, engine, baseline, lr=lr, prompt="Result:")


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_training_raises_the_gold_answers_probability_and_leaves_the_main_model_alone(host, tiny_model, method):
    trainer = trainer_for(host, tiny_model, method=method, batch={"questions": 2, "samples": 3})
    digest = trainer.engine.decoder.fingerprint()
    rows = list(trainer.run())
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert np.mean([row["gold_nll"] for row in rows[-5:]]) < 0.75 * rows[0]["gold_nll"]
    assert trainer.engine.decoder.fingerprint() == digest
    assert rows[0]["backpropagated"] > rows[0]["prefilled"] > 0


def test_a_step_sees_as_many_training_answers_as_a_run_does(host, tiny_model, monkeypatch):
    trainer = trainer_for(host, tiny_model, batch={"questions": 3, "samples": 4, "decodes": 2}, scorer="random")
    seen = []
    original = trainer.baseline.log_prob
    monkeypatch.setattr(
        trainer.baseline, "log_prob", lambda q, prompt, a: seen.append((q, prompt, a)) or original(q, prompt, a)
    )
    trainer.step()
    ((questions, prompt, answers),) = seen
    task = trainer.engine.task
    shelf = {task.item("train", n).question for n in range(task.size("train"))}
    assert len(questions) == len(answers) == 6
    assert set(questions) <= shelf
    assert prompt == "Result:"


def test_the_same_seed_trains_the_same_baseline(host, tiny_model):
    losses = [[row["gold_nll"] for row in trainer_for(host, tiny_model, steps=3, seed=s).run()] for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
