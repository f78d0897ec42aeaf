"""The plugin host: what it accepts, what it refuses, and what it keeps of a broken plugin."""

from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dlr_core import ConfigError, DLRError, PluginError, PluginHost, hookimpl
from dlr_core.host import KINDS


class Short:
    """Pays for brevity.

    More about it.
    """


class Tuned:
    """Has settings."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        weight: float = Field(1.0, ge=0)
        gate: bool = False

    def __init__(self, options: Options, extra: int = 0, argument: str | None = None) -> None:
        self.options, self.extra, self.argument = options, extra, argument


def plugin(version: Any = 1, **hooks: dict[str, Any]) -> Any:
    """A plugin module that registers ``{kind: {name: factory}}``; a factory that is an exception is raised."""
    module: Any = ModuleType("made_up")
    if version is not None:
        module.DLR_API_VERSION = version
    for kind, factories in hooks.items():

        def hook(register: Any, factories: dict[str, Any] = factories) -> None:
            for name, factory in factories.items():
                if isinstance(factory, Exception):
                    raise factory
                register(name, factory)

        hook.__name__ = f"dlr_register_{kind}"
        setattr(module, hook.__name__, hookimpl(hook))
    return module


def everything(host: PluginHost) -> list[tuple[str, str]]:
    return [(entry.kind, entry.name) for kind in KINDS for entry in host.entries(kind)]


def test_an_empty_host_has_nothing_and_says_so() -> None:
    host = PluginHost()
    assert everything(host) == []
    assert host.skipped == []
    with pytest.raises(ConfigError, match="no reward named 'dual'; known: none"):
        host.find("reward", "dual")


def test_hosts_do_not_share_anything() -> None:
    one, two = PluginHost(), PluginHost()
    one.add(plugin(reward={"short": Short}), "p")
    assert everything(one) == [("reward", "short")]
    assert everything(two) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_door(kind: str) -> None:
    host = PluginHost()
    host.add(plugin(**{kind: {"b": Short, "a": Tuned}}), "p")
    assert host.names(kind) == ["a", "b"]
    assert [entry.plugin for entry in host.entries(kind)] == ["p", "p"]
    assert everything(host) == [(kind, "a"), (kind, "b")]


def test_an_entry_tells_the_first_line_of_its_docstring() -> None:
    host = PluginHost()
    host.add(plugin(reward={"short": Short}), "p")
    assert host.find("reward", "short").summary == "Pays for brevity."


def test_a_name_clash_names_both_owners_and_keeps_the_first() -> None:
    host = PluginHost()
    host.add(plugin(reward={"short": Short}), "first")
    with pytest.raises(PluginError, match="reward 'short' belongs to 'first', so 'second' may not take it"):
        host.add(plugin(control={"other": Short}, reward={"short": Tuned}), "second")
    assert host.find("reward", "short").factory is Short
    assert everything(host) == [("reward", "short")]


def test_a_plugin_may_not_register_a_name_twice() -> None:
    host = PluginHost()
    module: Any = plugin()

    @hookimpl
    def dlr_register_reward(register: Any) -> None:
        register("short", Short)
        register("short", Tuned)

    module.dlr_register_reward = dlr_register_reward
    with pytest.raises(PluginError, match="reward 'short' belongs to 'p'"):
        host.add(module, "p")
    assert everything(host) == []


def test_one_name_may_serve_two_kinds() -> None:
    host = PluginHost()
    host.add(plugin(reward={"none": Short}, control={"none": Tuned}), "p")
    assert host.find("reward", "none").factory is Short
    assert host.find("control", "none").factory is Tuned


def test_a_misspelt_hook_is_refused_by_name() -> None:
    host = PluginHost()
    with pytest.raises(PluginError, match="dlr_register_rewrad"):
        host.add(plugin(reward={"short": Short}, rewrad={"long": Short}), "p")
    assert everything(host) == []


def test_a_hook_with_a_wrong_argument_is_refused() -> None:
    module: Any = plugin()

    @hookimpl
    def dlr_register_reward(registre: Any) -> None:
        raise NotImplementedError

    module.dlr_register_reward = dlr_register_reward
    with pytest.raises(PluginError, match="registre"):
        PluginHost().add(module, "p")


@pytest.mark.parametrize(("version", "got"), [(None, "None"), (0, "0"), ("1", "'1'"), (2, "2")])
def test_another_api_version_is_refused(version: Any, got: str) -> None:
    host = PluginHost()
    with pytest.raises(PluginError, match=f"DLR_API_VERSION is {got}, this host needs 1"):
        host.add(plugin(version, reward={"short": Short}), "p")
    assert everything(host) == []


@pytest.mark.parametrize(("name", "factory"), [("", Short), (3, Short), ("short", None), ("short", "Short")])
def test_what_is_no_name_or_no_factory_is_refused(name: Any, factory: Any) -> None:
    with pytest.raises(PluginError, match="expected a"):
        PluginHost().add(plugin(reward={name: factory}), "p")


def test_nothing_is_kept_of_a_plugin_whose_last_hook_fails() -> None:
    host = PluginHost()
    broken = plugin(assistant={"good": Short}, env={"fine": Short, "bad": ValueError("no luck")})
    with pytest.raises(ValueError, match="no luck"):
        host.add(broken, "p")
    assert everything(host) == []
    host.add(plugin(assistant={"good": Tuned}), "p")  # neither its plugin name nor its component names are taken
    assert everything(host) == [("assistant", "good")]


def test_the_same_plugin_name_twice_is_refused() -> None:
    host = PluginHost()
    host.add(plugin(reward={"short": Short}), "p")
    with pytest.raises(PluginError, match="'p'"):
        host.add(plugin(control={"other": Short}), "p")
    assert everything(host) == [("reward", "short")]


GOOD = """
from dlr_core import hookimpl
DLR_API_VERSION = 1
class {cls}:
    "A component."
@hookimpl
def dlr_register_reward(register):
    register("{name}", {cls})
"""


def install(folder: Path, name: str, source: str) -> None:
    """A distribution ``name`` 1.2 with one plugin module, on a folder of the import path."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[dlr]\n{name} = {name}\n", encoding="utf-8")


def test_a_broken_distribution_is_skipped_and_reported_and_the_others_still_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "zz_good", GOOD.format(cls="Good", name="zz"))
    install(
        tmp_path, "yy_crash", GOOD.format(cls="Crash", name="yy") + "\nraise OSError('disk on fire\\nsecond line')\n"
    )
    install(tmp_path, "xx_clash", GOOD.format(cls="Clash", name="dual"))
    install(tmp_path, "ww_old", GOOD.format(cls="Old", name="ww").replace("VERSION = 1", "VERSION = 99"))
    install(tmp_path, "vv_spelt", GOOD.format(cls="Spelt", name="vv").replace("register_reward", "register_rewrad"))
    monkeypatch.syspath_prepend(tmp_path)
    host = PluginHost.from_entry_points()
    rewards = host.names("reward")
    assert "zz" in rewards
    assert "dual" in rewards
    assert not {"yy", "ww", "vv"} & set(rewards)
    assert host.find("reward", "dual").plugin == "builtin"
    reports = {skipped.plugin: str(skipped) for skipped in host.skipped}
    assert set(reports) == {"yy_crash", "xx_clash", "ww_old", "vv_spelt"}
    assert reports["yy_crash"] == "plugin 'yy_crash' (yy_crash 1.2) skipped: OSError: disk on fire"
    assert "belongs to 'builtin', so 'xx_clash' may not take it" in reports["xx_clash"]
    assert "DLR_API_VERSION is 99, this host needs 1" in reports["ww_old"]
    assert "dlr_register_rewrad" in reports["vv_spelt"]


def test_a_missing_module_is_skipped() -> None:
    host = PluginHost()
    assert not host.load(EntryPoint("gone", "no_such_module_anywhere", "dlr"))
    (skipped,) = host.skipped
    assert (skipped.plugin, skipped.distribution) == ("gone", "unknown distribution")
    assert "no_such_module_anywhere" in skipped.reason


def test_the_built_in_plugins_load_without_complaint() -> None:
    host = PluginHost.from_entry_points()
    assert [s for s in host.skipped if s.plugin in ("builtin", "envs")] == []
    assert {entry.plugin for kind in KINDS for entry in host.entries(kind)} >= {"builtin", "envs"}
    assert all(entry.summary for kind in KINDS for entry in host.entries(kind))


@pytest.fixture
def tuned() -> PluginHost:
    host = PluginHost()
    host.add(plugin(reward={"tuned": Tuned, "short": Short}), "p")
    return host


def test_components_are_built_from_validated_options_and_context(tuned: PluginHost) -> None:
    made = tuned.create("reward", "tuned", {"weight": 2}, extra=5)
    assert (made.options.weight, made.options.gate, made.extra) == (2.0, False, 5)
    assert isinstance(tuned.create("reward", "short"), Short)


def test_an_argument_after_the_colon_reaches_the_component(tuned: PluginHost) -> None:
    assert tuned.create("reward", "tuned:deep:er").argument == "deep:er"
    assert tuned.find("reward", "tuned:x").name == "tuned"


def test_an_argument_to_a_component_that_takes_none_is_the_callers_error(tuned: PluginHost) -> None:
    with pytest.raises(DLRError, match="short"):
        tuned.create("reward", "short:deep")


def test_unknown_names_are_offered_the_nearest(tuned: PluginHost) -> None:
    with pytest.raises(ConfigError, match=r"no reward named 'tunde'; did you mean 'tuned'\?"):
        tuned.create("reward", "tunde")
    with pytest.raises(ConfigError, match="no reward named 'zzz'; known: short, tuned"):
        tuned.options("reward", "zzz", {})


def test_all_problems_of_a_components_options_come_at_once(tuned: PluginHost) -> None:
    with pytest.raises(ConfigError) as caught:
        tuned.options("reward", "tuned", {"wieght": 1, "weight": -1, "gate": "perhaps"})
    lines = sorted(caught.value.problems)
    assert len(lines) == 3
    assert lines[0].startswith("reward 'tuned': gate: ")
    assert lines[0].endswith("got 'perhaps'")
    assert lines[1] == "reward 'tuned': no option named 'wieght'; did you mean 'weight'?"
    assert lines[2] == "reward 'tuned': weight: Input should be greater than or equal to 0, got -1"


def test_a_component_without_options_takes_none(tuned: PluginHost) -> None:
    assert tuned.options("reward", "short", {}) is None
    with pytest.raises(ConfigError, match="reward 'short' takes no options, got a, b"):
        tuned.options("reward", "short", {"b": 1, "a": 2})


def test_without_a_plugin_that_builds_environments_none_is_built() -> None:
    host = PluginHost()
    host.add(plugin(env={"mine/Toy-v0": lambda: "spec"}), "mine")
    with pytest.raises(ConfigError, match="no loaded plugin builds environments"):
        host.make_env("mine/Toy-v0", num_envs=2)
    with pytest.raises(ConfigError, match="no env named 'mine/Toy-v1'"):
        host.make_env("mine/Toy-v1", num_envs=2)


def test_late_names_are_there_and_unknown_ones_are_not() -> None:
    import dlr_core

    assert dlr_core.DLRPipeline.__name__ == "DLRPipeline"
    assert dlr_core.Trainer.__name__ == "Trainer"
    with pytest.raises(AttributeError):
        dlr_core.Nothing  # noqa: B018
