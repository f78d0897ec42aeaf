"""A component named rather than imported: ``"package.module:Name"``, so that listing parts loads none of them."""

import ast
import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dlr_core.errors import PluginError, kind_and_line

FORM = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def check(text: str) -> None:
    """Refuse what cannot be one, and a module that is not there; its parent packages are imported, it is not.

    A parent that raises is told of when the part is used, like the module itself.

    Raises:
        PluginError: not of the form ``package.module:Name``, or there is no such module.
    """
    form = FORM.fullmatch(text)
    if form is None:
        raise PluginError(f"expected a class, a function or 'package.module:Name', got {text!r}")
    module = form["module"]
    try:
        missing = find_spec(module) is None
    except ModuleNotFoundError as error:
        missing = f"{module}.".startswith(f"{error.name}.")
    except Exception:  # a stranger's package may raise anything
        missing = False
    if missing:
        raise PluginError(f"there is no module {module!r}")


def resolve(text: str) -> Any:
    """The class or function itself.

    Raises:
        PluginError: importing it failed, or the module has no such callable.
    """
    module, _, name = text.partition(":")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # a stranger's module may raise anything
        raise PluginError(f"cannot import {text}: {kind_and_line(error)}") from error
    if not callable(found):
        raise PluginError(f"expected a class or function at {text}, got {found!r}")
    return found


def docstring(text: str) -> str:
    """Its docstring, read from the source where it has one of its own there; imported otherwise.

    Raises:
        PluginError: it had to be imported, and could not be.
    """
    module, _, name = text.partition(":")
    try:
        spec = find_spec(module)
        nodes = ast.parse(getattr(spec and spec.loader, "get_source", lambda _: None)(module) or "").body
    except Exception:  # importing it, below, says what is wrong
        nodes = []
    for node in nodes:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != name:
            continue
        if found := ast.get_docstring(node):
            return found
    return inspect.getdoc(resolve(text)) or ""
