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
    """Refuse what cannot be one, and a module that is not there; the module itself is not imported.

    Raises:
        PluginError: not of the form ``package.module:Name``, or there is no such module.
    """
    module = FORM.fullmatch(text)
    if module is None:
        raise PluginError(f"expected a class, a function or 'package.module:Name', got {text!r}")
    try:
        spec = find_spec(module["module"])
    except ImportError:
        spec = None
    if spec is None:
        raise PluginError(f"there is no module {module['module']!r}")


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
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    for node in ast.parse(source or "").body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != name:
            continue
        if found := ast.get_docstring(node):
            return found
    return inspect.getdoc(resolve(text)) or ""
