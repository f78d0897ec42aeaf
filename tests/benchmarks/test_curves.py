"""What is read off learning curves, and how pieces are planned, kept and summed up."""

import math
import time

import filter_cost
import learning
import pytest
from curves import Prober, accuracy_at, gain, stays
from pieces import Pieces

from dlr_core.errors import ConfigError
from dlr_core.records import Item, Sample


def curve(*accuracies, minutes=10.0, flops=100):
    last = len(accuracies) - 1
    return [
        {
            "seconds": 60 * minutes * n / last, "steps": n, "flops": flops * n // last, "completions": 96 * n,
            "accuracy": accuracy, "format": 1.0,
        }
        for n, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def test_a_target_is_reached_where_no_later_point_is_below_it():
    noisy = curve(0.1, 0.5, 0.3, 0.4, 0.6)
    assert stays(noisy, 0.4, "seconds") == 450.0
    assert stays(noisy, 0.3, "steps") == 1.0
    assert stays(noisy, 0.05, "completions") == 0.0
    assert stays(noisy, 0.7, "seconds") == math.inf
    assert stays(curve(0.9, 0.1), 0.5, "seconds") == math.inf


def test_accuracy_lies_straight_between_points():
    assert accuracy_at(curve(0.0, 0.2, 0.6, flops=100), "flops", 75) == pytest.approx(0.4)
    assert accuracy_at(curve(0.0, 0.2), "flops", 10**6) == 0.2


def test_never_getting_there_is_worth_nothing_and_the_others_never_is_its_whole_cost():
    assert gain(2.0, 6.0, 10.0) == 3.0
    assert gain(math.inf, 6.0, 10.0) == 0.0
    assert gain(2.0, math.inf, 10.0) == 5.0
    assert gain(math.inf, math.inf, 10.0) == 0.0


def test_held_out_questions_are_asked_at_even_shares_and_at_the_end():
    prober = Prober([Item("q", "1", 0), Item("r", "2", 1)], 4)
    asked = []

    def answer(items):
        return [Sample(i.question, i.answer, "", None, float(i.answer == "1"), 1.0, 1, True) for i in items]

    prober.take(answer, seconds=0.0, steps=0, flops=0, completions=0)
    for step in range(1, 11):
        if prober.due(step / 10):
            asked.append(step)
            prober.take(answer, seconds=float(step), steps=step, flops=step, completions=step)
    assert asked == [3, 5, 8, 10]
    assert prober.right == [1.0, 0.0]
    assert prober.curve[-1]["accuracy"] == 0.5


def piece(method, rate, seed, *accuracies, validation=0.0, **more):
    name = learning.name_of(method, rate, seed, 10)
    about = {"method": method, "rate": rate, "seed": seed, "questions": 300, "validation": validation, "machine": "m"}
    about["gold"] = method.startswith("peft")
    return name, {**about, "curve": curve(*accuracies, **more)}


def sweep(best="1e-05"):
    """Every rate under seed 0; one of each method does well on validation questions, and only there."""
    found, ends = [], {"grpo-full": 0.4, "peft-prefix": 0.9}
    chosen = {"grpo-full": best, "grpo-lora": "0.0003", "peft-prefix": "0.01", "peft-prompt": "0.03"}
    for method, rates in learning.SWEPT.items():
        for rate in rates:
            good, end = f"{rate:g}" == chosen[method], ends.get(method, 0.3)
            found.append(piece(method, rate, 0, 0.1, 0.2, end, validation=0.5 if good else 0.1, flops=400))
    return dict(found)


def test_first_ours_and_the_sweep_then_the_rates_that_validation_chose():
    left = learning.missing({}, [0, 1, 2], 10)
    assert left[0] == ("dlr", None, 0)
    assert {(method, rate) for method, rate, _ in left if rate} == {
        (method, rate) for method, rates in learning.SWEPT.items() for rate in rates
    }
    assert [seed for method, _, seed in left if method == "dlr"] == [0, 1, 2]
    left = learning.missing(sweep(), [0, 1, 2], 10)
    assert left == [
        ("dlr", None, 0), ("dlr", None, 1), ("dlr", None, 2), ("grpo-full", 1e-5, 1), ("grpo-full", 1e-5, 2),
        ("grpo-lora", 3e-4, 1), ("grpo-lora", 3e-4, 2), ("peft-prefix", 1e-2, 1), ("peft-prefix", 1e-2, 2),
        ("peft-prompt", 3e-2, 1), ("peft-prompt", 3e-2, 2),
    ]  # fmt: skip


def test_rates_that_were_chosen_before_are_not_swept_again(capsys, tmp_path):
    given = {"grpo-full": (3e-6,), "grpo-lora": (1e-4,)}
    left = learning.missing({}, [0, 1], 10, given)
    assert left == [("dlr", None, 0), ("grpo-full", 3e-6, 0), ("grpo-lora", 1e-4, 0), ("dlr", None, 1)]
    rates = {"dlr": None, "grpo-full": 3e-6, "grpo-lora": 1e-4}
    pieces = dict([piece(method, rate, 0, 0.1, 0.2, 0.3, flops=10) for method, rate in rates.items()])
    left = learning.missing(pieces, [0, 1], 10, given)
    assert left == [("dlr", None, 1), ("grpo-full", 3e-6, 1), ("grpo-lora", 1e-4, 1)]
    assert learning.compare(pieces, [0, 1], 10) is None
    ratio, detail = learning.compare(pieces, [0, 1], 10, given)
    assert (ratio.ratio, detail["rates"]) == (1.0, {"grpo-full": 3e-6, "grpo-lora": 1e-4})
    for wrong in ("grpo-lora", "grpo-lora=fast", "sft=1e-3"):
        with pytest.raises(SystemExit):
            learning.main(["show", "--pieces", str(tmp_path), "--only", wrong])
        assert f"got {wrong!r}" in capsys.readouterr().err


def test_time_to_what_the_better_of_trls_settings_ends_with():
    pieces = sweep()
    assert learning.compare(pieces, [0, 1, 2], 10) is None
    for seed, own in enumerate([(0.1, 0.4, 0.5, 0.5, 0.5), (0.1, 0.3, 0.4, 0.4, 0.4), (0.1, 0.1, 0.1, 0.1, 0.3)]):
        pieces |= dict([piece("dlr", None, seed, *own)])
    ratio, detail = learning.compare(pieces, [0, 1, 2], 10)
    assert detail["better"] == "grpo-full"
    assert detail["target"] == 0.4
    assert detail["rates"] == {"grpo-full": 1e-5, "grpo-lora": 3e-4, "peft-prefix": 1e-2, "peft-prompt": 3e-2}
    assert (ratio.ratio, ratio.low, ratio.high, ratio.n) == (2.0, 0.0, 4.0, 3)
    assert learning.remark(detail) == (
        "grpo-full ends with 40.0% after 10.0 min and 192 completions, and stays above that itself after 10.0 min; "
        "ours stays above it after 2.5 min and 96 completions, 5.0 min and 192 completions, never."
    )
    assert learning.sheet(detail).rows[3][:2] == ("peft-prefix, rate 0.01", "yes")
    assert learning.more(detail).rows == []
    at_the_edge = detail | {"rates": {"grpo-full": 3e-6, "grpo-lora": 1e-3}}
    assert learning.remark(at_the_edge).endswith("never. grpo-lora: the best rate is at the edge of the sweep.")
    assert learning.sheet(detail).rows[1] == (
        "grpo-full, rate 1e-05", "no", "0", "2", "0.0", "10.0", "40.0", "15.0",
    )  # fmt: skip
    assert detail["our_seconds_to_target"] == [150.0, 300.0, None]
    assert detail["our_completions_to_target"] == [96.0, 192.0, None]
    assert detail["equal_tflop"] == 100 / 1e12
    assert detail["accuracy_at_equal_flops"]["grpo-full"] == pytest.approx(0.15)
    assert detail["accuracy_at_equal_time"]["dlr"] == pytest.approx(0.4)


def test_the_filters_cost_is_compared_seed_by_seed():
    def own(keep, seed, *accuracies, flops):
        return {filter_cost.name_of(keep, seed): {"curve": curve(*accuracies, flops=flops)}}

    pieces = own(16, 0, 0.0, 0.1, 0.4, 0.4, 0.4, flops=400) | own(16, 1, 0.0, 0.1, 0.1, 0.4, 0.4, flops=400)
    assert filter_cost.compare(pieces, [0, 1]) is None
    pieces |= own(3, 0, 0.0, 0.1, 0.1, 0.1, 0.3, flops=100) | own(3, 1, 0.0, 0.0, 0.0, 0.0, 0.1, flops=100)
    ratio, detail = filter_cost.compare(pieces, [0, 1, 2])
    assert detail["target"] == 0.2
    assert detail["tflop_to_target"]["16 of 16"] == [200 / 1e12, 300 / 1e12]
    assert (ratio.ratio, ratio.low, ratio.high, ratio.n) == (1.0, 0.0, 2.0, 2)
    assert filter_cost.sheet(detail).rows[-1] == ("3 of 16", "0.0, never", "30.0, 10.0")
    assert filter_cost.missing(pieces, [0])[0] == (8, 0)


def test_a_piece_is_read_as_it_was_kept_and_machines_are_not_mixed(tmp_path):
    store = Pieces(tmp_path)
    name, made = piece("dlr", None, 0, 0.1, 0.2)
    store.write(name, made)
    kept = store.read()[name]
    assert kept["curve"] == made["curve"]
    assert kept["machine"] != "m"
    store.of_one_machine(here=True)
    other = store.path(name).read_text().replace(kept["machine"], "another machine")
    store.path("other").write_text(other)
    with pytest.raises(ConfigError, match="another machine"):
        store.of_one_machine(here=False)
    store.path(name).unlink()
    store.of_one_machine(here=False)
    with pytest.raises(ConfigError, match="mix"):
        store.of_one_machine(here=True)


@pytest.mark.parametrize("at_once", [1, 2])
def test_missing_pieces_are_trained_until_enough_and_none_twice(tmp_path, monkeypatch, at_once):
    store, made, running, most = Pieces(tmp_path / "pieces"), [], [], []

    def train(script, arguments):
        running.append(script)
        most.append(len(running))
        time.sleep(0.02)
        given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        rate = float(given["--rate"]) if "--rate" in given else None
        made.append((arguments[0], rate, given["--seed"]))
        name, whole = piece(arguments[0], rate, given["--seed"], 0.1, 0.2, 0.4, validation=rate or 0.0)
        store.write(name, whole)
        running.pop()

    monkeypatch.setattr(learning, "train", train)
    line = [
        "run", "--pieces", str(store.folder), "--out", str(tmp_path), "--seeds", "0", "1", "--at-once", str(at_once),
    ]  # fmt: skip
    learning.main([*line, "--at-most", "2"])
    assert sorted(made) == [("dlr", None, 0), ("grpo-full", 1e-6, 0)]
    assert not (tmp_path / "results.json").exists()
    learning.main(line)
    assert len(made) == len(set(made)) == 2 + 16 + 4
    assert sorted(made[-4:]) == [
        ("grpo-full", 3e-5, 1), ("grpo-lora", 1e-3, 1), ("peft-prefix", 1e-1, 1), ("peft-prompt", 3e-1, 1),
    ]  # fmt: skip
    assert max(most) == at_once
    assert (tmp_path / "learn_vs_grpo.png").is_file()
    before = len(made)
    learning.main(line)
    assert len(made) == before
    store.path("dlr-seed1-10min").unlink()
    with pytest.raises(ConfigError, match="pieces of 300 questions are there: --questions 300"):
        learning.main([*line, "--questions", "150"])


def test_a_filter_piece_is_a_run_of_the_sweep_with_so_many_decoded(tmp_path, tiny_model):
    small = {
        "task.pool": 40, "decoder.max_new_tokens": 3, "space.num_latents": 2, "space.latent_dim": 4, "steps": 2,
        "assistant.width": 16, "assistant.layers": 1, "batch.questions": 2,
    }  # fmt: skip
    for keep in (16, 3):
        filter_cost.main([
            "piece", "--keep", str(keep), "--pieces", str(tmp_path), "--main-model", str(tiny_model),
            "--questions", "4", "--probes", "2",
            *(part for key, value in small.items() for part in ("--set", f"{key}={value}")),
        ])  # fmt: skip
    pieces = Pieces(tmp_path).read()
    whole, kept = pieces["keep16-seed0"]["curve"], pieces["keep3-seed0"]["curve"]
    assert [point["steps"] for point in whole] == [point["steps"] for point in kept] == [0, 1, 2]
    assert [point["completions"] for point in whole] == [0, 32, 64]
    assert [point["completions"] for point in kept] == [0, 6, 12]
    assert kept[-1]["flops"] < whole[-1]["flops"]
