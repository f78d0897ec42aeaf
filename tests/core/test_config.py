"""Settings: merging, parsing, and every problem at once."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dlr_core import ConfigError, PluginHost, hookimpl
from dlr_core.assignments import merge, parse_assignment, read_toml
from dlr_core.config import resolve, same_settings


class WithOptions:
    """Takes a width."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        width: int = Field(8, gt=0)
        depth: int = Field(2, gt=0)


class Plain:
    """Takes no options."""


class Sampling(WithOptions):
    needs_sampling = True


class Backend:
    """A decoder."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        model: str = "small"
        device: str = "auto"
        dtype: str = "auto"


class Afar(Backend):
    """One that gives no gradient, and feeds embeddings only."""

    gives_gradient, embeddings_only, reports_entropy = False, True, False

    class Options(Backend.Options):
        url: str = "here"
        patience: int = Field(3, gt=0)


class Blind(WithOptions):
    needs_gradient = False


class Charted:
    embeddings_only = True

    class Options(BaseModel):
        chart: str = "joint"


class Undecided(Plain):
    needs_entropy = True


class DecodesAll(Plain):
    decodes_all = True


COMPONENTS = {
    "assistant": {"small-gpt": WithOptions, "mlp": WithOptions},
    "reward": {"dual": WithOptions, "correctness": Plain, "decisive": Undecided},
    "contrastive": {"bidirectional": WithOptions, "none": Plain},
    "scorer": {"none": DecodesAll, "learned": WithOptions},
    "estimator": {"pathwise_greedy": WithOptions, "pathwise": Sampling, "score": Blind},
    "space": {"kv": WithOptions, "input": Charted},
    "decoder": {"hf": Backend, "afar": Afar},
    "env": {"dlr/ChainSum-v0": Plain, "dlr/GSM8K-v0": Plain},
    "logger": {"tensorboard": Plain, "early-stop": WithOptions},
}


@pytest.fixture
def small_host() -> PluginHost:
    """A host whose components are light stand-ins under the default names."""
    plugin: Any = ModuleType("stand_ins")
    plugin.DLR_API_VERSION = 1
    for kind, factories in COMPONENTS.items():

        def hook(register: Any, factories: Any = factories) -> None:
            for name, factory in factories.items():
                register(name, factory)

        hook.__name__ = f"dlr_register_{kind}"
        setattr(plugin, hook.__name__, hookimpl(hook))
    host = PluginHost()
    host.add(plugin, "stand-ins")
    return host


def problems(values: dict[str, Any], host: PluginHost) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        resolve(values, host)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def test_nothing_given_gives_the_defaults(small_host: PluginHost) -> None:
    config = resolve({}, small_host)
    assert config.seed == 0
    assert config.env == "dlr/ChainSum-v0"
    assert config.assistant.name == "small-gpt"
    assert config.decodes == config.batch.samples == 8


def test_a_name_alone_stands_for_a_table_and_options_for_the_default(small_host: PluginHost) -> None:
    config = resolve({"assistant": "mlp", "reward": {"width": 3}}, small_host)
    assert (config.assistant.name, config.assistant.options) == ("mlp", {"width": 8, "depth": 2})  # defaults spelt out
    assert (config.reward.name, config.reward.options) == ("dual", {"width": 3, "depth": 2})


def test_loggers_are_a_list_of_names_and_tables_in_their_order(small_host: PluginHost) -> None:
    assert [logger.name for logger in resolve({}, small_host).loggers] == ["tensorboard"]
    assert resolve({"loggers": []}, small_host).loggers == ()
    given = [{"name": "early-stop", "width": 3}, "tensorboard", "early-stop"]
    config = resolve({"loggers": given}, small_host)
    assert [logger.name for logger in config.loggers] == ["early-stop", "tensorboard", "early-stop"]
    assert [logger.options.get("width") for logger in config.loggers] == [3, None, 8]
    assert resolve(config.model_dump(mode="json"), small_host) == config


def test_every_problem_with_loggers_is_named(small_host: PluginHost) -> None:
    given = ["tensorbord", {"name": "early-stop", "widht": 3}, {"width": 2}]
    found = problems({"loggers": given, "seed": -1}, small_host)
    assert "no logger named 'tensorbord'; did you mean 'tensorboard'?" in found
    assert any("did you mean 'width'?" in line for line in found)
    assert any("loggers.2.name: Field required" in line for line in found)
    assert any("seed" in line for line in found)
    assert "got 'csv'" in problems({"loggers": "csv"}, small_host)[0]


def test_settings_saved_before_a_setting_existed_are_the_same_with_its_default(small_host: PluginHost) -> None:
    config = resolve({"seed": 3}, small_host)
    saved = config.model_dump(mode="json")
    assert same_settings(saved, config, small_host)
    del saved["loggers"], saved["replay"]
    assert same_settings(saved, config, small_host)
    assert not same_settings({**saved, "seed": 4}, config, small_host)
    assert not same_settings({**saved, "loggers": []}, config, small_host)
    assert not same_settings({**saved, "no_longer_there": 1}, config, small_host)


def test_decodes_may_be_fewer_than_samples(small_host: PluginHost) -> None:
    config = resolve({"batch": {"samples": 6, "decodes": 2}, "scorer": "learned"}, small_host)
    assert config.decodes == 2


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=3", ["seed"], 3),
        ("optim.lr=1e-4", ["optim", "lr"], 1e-4),
        ("reward.gate=true", ["reward", "gate"], True),
        ("assistant=mlp", ["assistant"], "mlp"),
        ('assistant="mlp"', ["assistant"], "mlp"),
        ("task.path=/data/a=b.jsonl", ["task", "path"], "/data/a=b.jsonl"),
        ("task.sizes=[1, 2]", ["task", "sizes"], [1, 2]),
        ("task.name=", ["task", "name"], ""),
        (" seed = 4", ["seed"], 4),
    ],
)
def test_an_assignment_is_a_path_and_a_toml_value_or_text(text: str, path: list[str], value: Any) -> None:
    got_path, got = parse_assignment(text)
    assert (got_path, got) == (path, value)
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["seed", "=3", "", "optim..lr=3", ".lr=1", "optim.=1"])
def test_an_assignment_without_key_or_equals_sign_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value, got") as caught:
        parse_assignment(text)
    assert repr(text) in str(caught.value)


def test_merging_sets_a_nested_key_and_keeps_its_neighbours() -> None:
    base: dict[str, Any] = {"optim": {"lr": 1.0, "clip": 2.0}}
    merge(base, ["optim", "lr"], 3.0)
    merge(base, ["batch", "samples"], 4)
    merge(base, ["seed"], 5)
    assert base == {"optim": {"lr": 3.0, "clip": 2.0}, "batch": {"samples": 4}, "seed": 5}


def test_an_option_added_to_a_bare_component_name_keeps_the_name() -> None:
    base: dict[str, Any] = {"assistant": "mlp"}
    merge(base, ["assistant", "width"], 3)
    assert base == {"assistant": {"name": "mlp", "width": 3}}


def test_naming_another_component_drops_the_first_ones_options_and_the_same_keeps_them() -> None:
    base: dict[str, Any] = {"assistant": {"name": "mlp", "width": 3}}
    merge(base, ["assistant"], "mlp")
    assert base["assistant"] == {"name": "mlp", "width": 3}
    merge(base, ["assistant"], "small-gpt")
    assert base["assistant"] == {"name": "small-gpt"}


def test_a_task_option_that_is_called_like_a_component_stays_text() -> None:
    base: dict[str, Any] = {}
    merge(base, ["task", "space"], "wide")
    assert base == {"task": {"space": "wide"}}


def test_merging_never_changes_a_table_it_was_given_a_part_of() -> None:
    defaults = {"lr": 1.0}
    base: dict[str, Any] = {"optim": defaults}
    merge(base, ["optim", "lr"], 3.0)
    assert defaults == {"lr": 1.0}


def test_every_wrong_component_is_named_at_once_with_the_nearest_name(small_host: PluginHost) -> None:
    found = problems(
        {
            "assistant": "mpl",
            "reward": {"name": "dual", "widht": 3, "depth": 0},
            "env": "dlr/ChainSum-v1",
            "decoder": {"name": "hff"},
            "batch": {"samples": 2, "decodes": 4},
        },
        small_host,
    )
    text = "\n".join(found)
    for expected in (
        "no assistant named 'mpl'; did you mean 'mlp'?",
        "reward 'dual': no option named 'widht'; did you mean 'width'?",
        "reward 'dual': depth: Input should be greater than 0, got 0",
        "no env named 'dlr/ChainSum-v1'; did you mean 'dlr/ChainSum-v0'?",
        "no decoder named 'hff'; did you mean 'hf'?",
        "batch.decodes: expected at most batch.samples=2, got 4",
    ):
        assert expected in text
    assert all("\n" not in line for line in found)


def test_every_wrong_setting_is_named_at_once_with_expected_and_got(small_host: PluginHost) -> None:
    found = problems(
        {"sead": 1, "seed": "many", "optim": {"lr": -1.0}, "batch": {"samples": 1.5}, "steps": -3}, small_host
    )
    text = "\n".join(found)
    assert len(found) == 5
    assert "config: no option named 'sead'; did you mean 'seed'?" in text
    assert "seed: Input should be a valid integer" in text
    assert "got 'many'" in text
    assert "optim.lr: Input should be greater than 0, got -1.0" in text
    assert "batch.samples: Input should be a valid integer" in text
    assert "steps: Input should be greater than or equal to 0, got -3" in text


def test_wrong_settings_do_not_hide_wrong_components(small_host: PluginHost) -> None:
    text = "\n".join(problems({"sead": 1, "assistant": {"widht": 3}, "reward": "daul"}, small_host))
    assert "did you mean 'seed'?" in text
    assert "did you mean 'width'?" in text
    assert "did you mean 'dual'?" in text


def test_an_unknown_nested_key_is_offered_its_nearest_neighbour(small_host: PluginHost) -> None:
    (found,) = problems({"batch": {"sampels": 3}}, small_host)
    assert "batch.sampels" in found
    assert found.endswith(("did you mean 'samples'?", "did you mean 'batch.samples'?"))


@pytest.mark.parametrize("key", ["optim", "batch", "assistant", "task"])
def test_a_number_where_a_table_belongs_is_refused(key: str, small_host: PluginHost) -> None:
    (found,) = problems({key: 3}, small_host)
    assert found.startswith(f"config: {key}: ")
    assert found.endswith("got 3")


def test_settings_that_contradict_each_other_are_refused(small_host: PluginHost) -> None:
    assert problems({"steps": None, "minutes": None}, small_host) == ("expected a limit: steps, minutes, or both",)
    (greedy,) = problems({"estimator": "pathwise"}, small_host)
    assert "estimator 'pathwise' needs sampled completions: set decoder.temperature above 0" in greedy
    (partial,) = problems({"batch": {"samples": 4, "decodes": 2}}, small_host)
    assert partial == "scorer 'none' decodes every chain: batch.decodes must equal batch.samples"
    (many,) = problems({"batch": {"samples": 4, "decodes": 5}, "scorer": "learned"}, small_host)
    assert many == "batch.decodes: expected at most batch.samples=4, got 5"


def test_settings_that_go_together_pass(small_host: PluginHost) -> None:
    config = resolve({"estimator": "pathwise", "decoder": {"temperature": 0.7}}, small_host)
    assert config.estimator.name == "pathwise"
    resolve({"steps": None, "minutes": 1}, small_host)
    resolve({"batch": {"samples": 4, "decodes": 2}, "scorer": "learned"}, small_host)


def test_a_folder_may_stand_for_a_space(tmp_path: Path, small_host: PluginHost) -> None:
    assert resolve({"space": str(tmp_path)}, small_host).space.name == str(tmp_path)
    (found,) = problems({"space": str(tmp_path / "missing")}, small_host)
    assert "no space named" in found


def test_a_toml_file_is_read_as_tables(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\nassistant = "mlp"\n[optim]\nlr = 1e-4\n', encoding="utf-8")
    assert read_toml(path) == {"seed": 3, "assistant": "mlp", "optim": {"lr": 1e-4}}


@pytest.mark.parametrize("content", [None, b"seed = \n", b"seed = '\xff'\n"])
def test_a_toml_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the config file") as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_a_backends_own_options_are_spelt_out_and_checked_like_a_components(small_host: PluginHost) -> None:
    far = {"estimator": "score", "space": {"name": "input", "chart": "random"}, "replay": {"chains": 0}}
    config = resolve(
        {**far, "decoder": {"name": "afar", "patience": 5, "model": "large", "temperature": 0.5}}, small_host
    )
    own = {"model": "large", "device": "auto", "dtype": "auto", "url": "here", "patience": 5}
    assert config.decoder.options == own
    assert (config.decoder.name, config.decoder.temperature) == ("afar", 0.5)
    assert resolve(config.model_dump(mode="json"), small_host) == config
    assert resolve({}, small_host).decoder.options == {"model": "smollm2-135m", "device": "auto", "dtype": "auto"}
    assert "decoder 'afar': patience: Input should be greater than 0, got 0" in problems(
        {**far, "decoder": {"name": "afar", "patience": 0}}, small_host
    )
    for name, key, meant in (
        ("afar", "patiense", "patience"),
        ("hf", "url", "model"),
        ("hf", "temprature", "temperature"),
    ):
        (found,) = problems({**far, "decoder": {"name": name, key: 1}}, small_host)
        assert found.startswith(f"config: no option named 'decoder.{key}'; ")
        assert f"decoder.{meant}" in found


def test_what_a_decoder_cannot_do_is_one_line_for_every_setting_that_needs_it(small_host: PluginHost) -> None:
    far = {"decoder": {"name": "afar"}, "estimator": "score", "space": {"name": "input", "chart": "fixed"}}
    resolve({**far, "replay": {"chains": 0}}, small_host)
    lacks = "decoder 'afar' gives no gradient of the main model: "
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"estimator": "pathwise_greedy"}, f"{lacks}estimator 'pathwise_greedy' needs it; use score"),
        ({"space": "input"}, f"{lacks}a joint chart needs it; set space.chart to principal or random"),
        ({"replay": {}}, f"{lacks}replay needs it; set replay.chains=0"),
        ({"warmstart": {"steps": 1}}, f"{lacks}a warm start needs it; set warmstart.steps=0"),
        ({"reward": "decisive"}, "decoder 'afar' reports no entropy, which reward 'decisive' needs"),
    ]
    for changed, expected in wrong:
        assert problems({**far, "replay": {"chains": 0}, **changed}, small_host) == (expected,)
    (narrow,) = problems({**far, "replay": {"chains": 0}, "space": "kv"}, small_host)
    assert narrow.startswith("decoder 'afar' takes input embeddings only, and space 'kv' changes more than those")
    resolve({**far, "decoder": {"name": "hf"}, "estimator": "pathwise_greedy", "space": "kv"}, small_host)
