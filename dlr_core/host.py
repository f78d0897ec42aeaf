"""The plugin host: finds plugins, checks them one by one, and builds components by name."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from dlr_core import hookspecs, import_string
from dlr_core.errors import ConfigError, PluginError, kind_and_line, shown, unknown_name
from dlr_core.values import unusable
from dlr_core.version import API_VERSION

PREFIX = "dlr_register_"
RESTRICT = "DLR_PLUGINS"
OWN = ("builtin", "envs")
"""Entry points of this project: always loaded."""
KINDS = tuple(name.removeprefix(PREFIX) for name in vars(hookspecs) if name.startswith(PREFIX))


@dataclass(frozen=True)
class Entry:
    """One registered component: where it came from and what builds it."""

    kind: str
    name: str
    source: Any
    """What was registered: the class or function, or where it is (``"package.module:Name"``)."""
    plugin: str

    @property
    def factory(self) -> Any:
        """The class or function, imported now if it was registered by where it is.

        Raises:
            PluginError: it cannot be imported.
        """
        return self._ask(import_string.resolve) if isinstance(self.source, str) else self.source

    @property
    def summary(self) -> str:
        """First line of the factory's docstring, or why there is none to be had."""
        try:
            text = (
                inspect.getdoc(self.source) if not isinstance(self.source, str) else self._ask(import_string.docstring)
            )
        except PluginError as error:
            return str(error)
        return (text or "").partition("\n")[0]

    def _ask(self, question: Callable[[str], Any]) -> Any:
        try:
            return question(self.source)
        except PluginError as error:
            raise PluginError(f"{self.kind} {self.name!r} of plugin {self.plugin!r}: {error}") from error


@dataclass(frozen=True)
class Skipped:
    """A plugin that was found but not loaded, and why (one line)."""

    plugin: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} ({self.distribution}) skipped: {self.reason}"


class PluginHost:
    """A registry of components. Not a global: make one per program, or an empty one per test."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._entries: dict[tuple[str, str], Entry] = {}
        self.skipped: list[Skipped] = []
        self.distributions: dict[str, str] = {}
        """Where each loaded plugin came from: name and version of its distribution."""

    @classmethod
    def from_entry_points(cls) -> "PluginHost":
        """A host holding every working plugin of the entry-point group ``dlr``, this project's own first.

        The environment variable ``DLR_PLUGINS`` (names, comma-separated) restricts the others to those it names.
        """
        host = cls()
        asked = os.environ.get(RESTRICT)
        wanted = None if asked is None else {name.strip() for name in asked.split(",") if name.strip()}
        points = sorted(entry_points(group=hookspecs.PROJECT), key=lambda p: (p.name not in OWN, p.name))
        for point in points:
            if wanted is None or point.name in {*OWN, *wanted}:
                host.load(point)
        for name in sorted((wanted or set()) - {point.name for point in points}):
            host.skipped.append(Skipped(name, "not installed", f"{RESTRICT} names it, no entry point does"))
        return host

    def load(self, point: EntryPoint) -> bool:
        """Load one entry point; a broken one is noted in :attr:`skipped` and changes nothing else."""
        dist = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
        try:
            self.add(point.load(), point.name)
        except Exception as error:  # whatever a stranger's module raises must not take the host down
            self.skipped.append(Skipped(point.name, dist, kind_and_line(error)))
            return False
        self.distributions[point.name] = dist
        return True

    def add(self, plugin: object, name: str) -> None:
        """Register one plugin; nothing of it is kept unless all of its hooks succeed.

        Raises:
            PluginError: wrong API version, misspelt hook, bad factory, or a name another plugin holds.
        """
        declared = getattr(plugin, "DLR_API_VERSION", None)
        if declared != API_VERSION:
            raise PluginError(f"DLR_API_VERSION is {declared!r}, this host needs {API_VERSION}")
        if self._manager.has_plugin(name):
            raise PluginError(f"a plugin named {name!r} is already loaded")
        staged = self._stage(plugin, name)
        self._manager.register(plugin, name)
        self._entries.update(staged)

    def _stage(self, plugin: object, name: str) -> dict[tuple[str, str], Entry]:
        probe = pluggy.PluginManager(hookspecs.PROJECT)
        probe.add_hookspecs(hookspecs)
        try:
            probe.register(plugin, name)
            probe.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(" ".join(str(error).split())) from None
        staged: dict[tuple[str, str], Entry] = {}
        for kind in KINDS:

            def register(component: str, factory: Any, kind: str = kind) -> None:
                if not isinstance(component, str) or not component:
                    raise PluginError(f"{PREFIX}{kind}: expected a name, got {component!r}")
                if isinstance(factory, str):
                    try:
                        import_string.check(factory)
                    except PluginError as error:
                        raise PluginError(f"{kind} {component!r}: {error}") from None
                elif not callable(factory):
                    raise PluginError(f"{kind} {component!r}: expected a class or function, got {factory!r}")
                key = (kind, component)
                holder = staged.get(key) or self._entries.get(key)
                if holder:
                    raise PluginError(f"{kind} {component!r} belongs to {holder.plugin!r}, so {name!r} may not take it")
                staged[key] = Entry(kind, component, factory, name)

            getattr(probe.hook, PREFIX + kind)(register=register)
        return staged

    def names(self, kind: str) -> list[str]:
        """The registered names of one kind, sorted."""
        return sorted(name for k, name in self._entries if k == kind)

    def entries(self, kind: str) -> list[Entry]:
        """The registered components of one kind, sorted by name."""
        return [self._entries[kind, name] for name in self.names(kind)]

    def find(self, kind: str, name: str) -> Entry:
        """Look a component up by name; ``name:argument`` finds ``name``.

        Raises:
            ConfigError: there is none; the message offers the nearest name.
        """
        if not isinstance(name, str):
            raise ConfigError(f"{kind}: expected a name, got {shown(name)}")
        entry = self._entries.get((kind, name)) or self._entries.get((kind, name.partition(":")[0]))
        if entry is None:
            raise ConfigError(unknown_name(kind, name, self.names(kind)))
        return entry

    def options(self, kind: str, name: str, values: Mapping[str, Any]) -> BaseModel | None:
        """Validate a component's settings without building it.

        Raises:
            ConfigError: unknown name or bad settings, all problems at once.
        """
        model, where = getattr(self.find(kind, name).factory, "Options", None), f"{kind} {name!r}"
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: expected a table of options, got {shown(values)}")
        if model is None:
            if values:
                raise ConfigError(f"{where} takes no options, got {', '.join(sorted(map(str, values)))}")
            return None
        problems = [f"{where}: {line}" for line in unusable(values)]
        try:
            validated: BaseModel = model.model_validate(dict(values))
        except ValidationError as error:
            problems += explain(error, where, model.model_fields)
        if problems:
            raise ConfigError(*problems)
        return validated

    def create(self, kind: str, name: str, values: Mapping[str, Any] | None = None, **context: Any) -> Any:
        """Build a component from its name and settings; ``context`` is what its kind is given (see the protocols).

        Raises:
            ConfigError: unknown name or bad settings.
        """
        entry, options = self.find(kind, name), self.options(kind, name, values or {})
        factory = entry.factory
        if ":" in name and name != entry.name:
            if "argument" not in inspect.signature(factory).parameters:
                raise ConfigError(f"{kind} {entry.name!r} takes no argument, got {name!r}")
            context["argument"] = name.partition(":")[2]
        return factory(**context) if options is None else factory(options, **context)

    def make_env(self, name: str, *, num_envs: int, **kwargs: Any) -> Any:
        """The learner's vector environment of an id, from whichever plugin builds environments.

        Raises:
            ConfigError: no such id, or no plugin builds environments.
        """
        spec = self.create("env", name)
        made = self._manager.hook.dlr_make_env(name=name, spec=spec, num_envs=num_envs, kwargs=kwargs)
        if made is None:
            raise ConfigError("no loaded plugin builds environments")
        return made


def explain(error: ValidationError, where: str, fields: Mapping[str, Any]) -> list[str]:
    """A pydantic error as one line per problem, with the nearest field for an unknown one."""
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            table = fields
            for part in problem["loc"][:-1]:
                table = getattr(getattr(table.get(str(part)), "annotation", None), "model_fields", {})
            known = [".".join([*map(str, problem["loc"][:-1]), key]) for key in table]
            lines.append(f"{where}: {unknown_name('option', path, known)}")
        else:
            lines.append(f"{where}: {path}: {problem['msg']}, got {shown(problem['input'])}")
    return lines
