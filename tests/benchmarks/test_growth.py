"""Growth of a step: exponents of made-up growth, and settings that a run can have."""

import json
from pathlib import Path

import growth
import growth_page
import pytest
from growth_fit import exponent
from growth_fit import growth as growth_of
from growth_points import AXES, MODELS, WORDS, RandomModel
from growth_task import RIGHT, SIZE, GrowthPlugin, GrowthTask

from dlr_core import PluginHost
from dlr_core.config import resolve
from dlr_core.pipeline import build_trainer


@pytest.fixture(scope="module")
def host():
    made = PluginHost.from_entry_points()
    made.add(GrowthPlugin(), "growth")
    return made


def fit(xs, ys):
    return growth_of(xs, [[y] for y in ys])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_powers_exponent_is_found(power):
    xs = [1.0, 3.0, 4.0, 10.0]
    found = fit(xs, [5 * x**power for x in xs])
    assert found.whole == pytest.approx(power)
    assert found.low == found.high == pytest.approx(found.upper) == pytest.approx(power)
    assert (found.bend > 1.001) == (power > 1)
    assert (found.bend < 0.999) == (power < 1)


def test_a_part_that_does_not_grow_hides_the_exponent_and_not_the_bend():
    xs = [1.0, 2.0, 4.0, 8.0]
    found = fit(xs, [10 + x for x in xs])
    assert found.whole < found.upper < 1
    assert found.bend == pytest.approx(1)
    assert fit(xs, [10 + x * x for x in xs]).bend == pytest.approx(12 / (36 / 7))  # through 1, 4, 16 and 16, 64


def test_the_upper_half_has_the_middle_point_and_what_is_above():
    assert fit([1, 2, 4, 8, 16], [7, 7, 4, 8, 16]).upper == pytest.approx(1)
    assert fit([1, 2, 4, 8], [9, 9, 4, 8]).upper == pytest.approx(1)


def test_the_interval_is_that_of_turns_whose_points_stay_together():
    xs = [1, 2, 4, 8]
    slow = growth_of(xs, [[x, 3 * x, 2 * x] for x in xs])  # whole turns that are slow change no exponent
    assert (slow.low, slow.high) == pytest.approx((1, 1))
    apart = growth_of(xs, [[x, x**2, x**1.5] for x in xs])
    assert (apart.low, apart.upper, apart.high) == pytest.approx((1, 1.5, 2))


@pytest.mark.parametrize(("xs", "ys"), [([1], [1]), ([1, 2], [0, 1]), ([0, 2], [1, 1])])
def test_what_has_no_exponent_is_refused(xs, ys):
    with pytest.raises(ValueError, match="expected two points"):
        exponent(xs, ys)


@pytest.mark.parametrize("axis", list(AXES))
def test_the_settings_of_every_point_resolve_and_differ_in_one_thing_from_the_default(host, axis, tmp_path):
    folders = dict.fromkeys(MODELS, tmp_path)
    own = {"env": "dlr/Growth-v0", "steps": 10_000, "minutes": None, "loggers": [], "probe": {"every": 0}}
    plain = resolve(own, host)
    for point in AXES[axis]:
        config = resolve(point.values(folders), host)
        differing = {key for key, value in config.model_dump().items() if value != plain.model_dump()[key]}
        told = {"B": config.batch.questions, "K": config.decodes, "T": config.space.options["num_latents"]}
        assert told.get(axis, point.value) == point.value
        assert len(differing) <= (1 if axis != "prompt" else 0)
        assert (len(differing) == 0) == (not point.settings and point.model is None)


def test_axes_rise_and_share_the_default():
    shared = {point.same for points in AXES.values() for point in points}
    assert len(shared) == sum(map(len, AXES.values())) - 2
    for points in AXES.values():
        assert [point.value for point in points] == sorted(point.value for point in points)


def test_random_models_have_whole_heads():
    for model in MODELS:
        config = model.config()
        assert config["num_attention_heads"] == 3 * config["num_key_value_heads"]
        assert config["num_attention_heads"] * 64 == config["hidden_size"]
    assert RandomModel(576, 30) in MODELS  # the real one's


def test_the_task_asks_as_many_words_and_calls_a_fixed_share_right():
    task = GrowthTask(GrowthTask.Options())
    lengths = []
    for task.words in WORDS:
        texts = [task.item("train", index).question for index in range(SIZE)]
        assert len(set(texts)) == SIZE
        lengths.append({len(text.split()) for text in texts})
    assert lengths == [{13 + words} for words in WORDS]
    verdicts = [task.score(task.item("train", index), " 12", True).correct for index in range(SIZE)]
    assert sum(verdicts) / SIZE == pytest.approx(RIGHT, abs=0.03)


def test_a_longer_prompt_is_longer_by_what_it_has_to_itself(host, tiny_model):
    values = {"env": "dlr/Growth-v0", "steps": 1, "loggers": [], "decoder": {"model": str(tiny_model)}}
    engine = build_trainer(resolve(values, host), host).env.engine
    counted = []
    for engine.task.words in (20, 120):
        before = engine.decoder.usage.copy()
        width = engine.prefill([engine.task.item("train", number).question for number in range(8)]).mask_NS.shape[1]
        counted.append((width, engine.decoder.usage.since(before).prefilled))
    (narrow, few), (wide, many) = counted
    assert many - few > 0.9 * 8 * (wide - narrow)


def test_the_page_shows_what_was_measured():
    result = json.loads(growth.RESULT.read_text(encoding="utf-8"))
    page = (growth_page.DOCS / "growth.md").read_text(encoding="utf-8")
    assert growth_page.exponents(result["axes"]).markdown() in page
    assert growth_page.values(result["axes"]).markdown() in page
    assert Path(growth.HERE / "growth.png").is_file()
