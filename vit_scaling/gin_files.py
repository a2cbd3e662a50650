"""Find, parse and check gin files; a binding that no run reads raises an error."""
# SPDX-License-Identifier: Apache-2.0

import inspect
import io
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from etils import epath
from gin import config as gin_config

from vit_scaling.argument_types import annotations_of, check_argument
from vit_scaling.naming import did_you_mean, nearest
from vit_scaling.unquoted_texts import explain_unquoted_text

MACRO = "gin.macro"
# A binding as gin prints it: on one line, or indented behind a backslash.
_BINDING = re.compile(r"^\S+ = (?:\\(?:\n {4}.*)+|.+)", re.MULTILINE)
_UNKNOWN_PARAMETER = re.compile(
    r"Configurable '(?:\w+\.)*(\w+)' doesn't have a parameter named '(\w+)'"
)
_MISSING_VALUE = re.compile(r"^(\S+) = %gin\.REQUIRED$", re.MULTILINE)
_INCLUDE = re.compile(r"include\s+['\"]([^'\"]*)['\"]")
_roots: tuple[str, ...] = ()
_known: dict[str, Callable[..., Any]] = {}
_renamed: dict[str, str] = {}
_config: Mapping[Any, Any] = {}  # Gin's own, after the last `parse`.


def root() -> Path:
    """Return the folder of the package's gin files, installed or in a checkout."""
    package = Path(__file__).parent
    installed = package / "gin_data"
    return installed if installed.is_dir() else package.parent / "gin"


def find(name: str) -> epath.Path:
    """Return the gin file of a name such as "experiments/vit_b16.gin", or of a path.

    A name may leave out its folder and ".gin" where that names one file only.

    Raises:
        FileNotFoundError: No such file exists. The message has the nearest names.
    """
    for path in (name, root() / name, root() / f"{name}.gin"):
        if epath.Path(path).is_file():
            return epath.Path(path)
    paths = sorted(
        path.relative_to(root()).as_posix() for path in root().rglob("*.gin")
    )
    same_stem = [path for path in paths if Path(path).stem == Path(name).stem]
    if len(same_stem) == 1 and "/" not in name:
        return epath.Path(root() / same_stem[0])
    stems = {Path(path).stem: path for path in paths}
    near = (
        same_stem
        or nearest(name, paths, count=3)
        or [stems[stem] for stem in nearest(name, stems, count=3)]
    )
    suggestion = f" Did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(
        f"`gin_file` must be a path or a name in the package's gin folder; received "
        f"{name!r}.{suggestion}"
    )


def clear() -> None:
    """Remove all bindings, to parse another configuration."""
    gin.clear_config()


def parse(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    *,
    known: Mapping[str, Callable[..., Any]],
    roots: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Parse gin files in order, then bindings; raise if no run reads one of them.

    Args:
        files: Paths or names; a later file wins over an earlier one.
        bindings: Such as "TOTAL_STEPS = 1000"; they win over all files.
        known: Configurables by name, suggested for misspelt names.
        roots: Selectors of the functions that a program calls, such as
            "vit_scaling.train".
        defaults: Values for required macros without a value, for programs that do not
            use them, such as the data's pattern where no data is read.
        renamed: Earlier names of bindings and the present ones, such as
            {"train.keep_last": "RunOptions.keep_last"}.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A name or parameter is misspelt, a scope or macro is not read,
            or a required value is missing.
    """
    global _roots, _renamed, _known
    _roots, _renamed, _known = tuple(roots), dict(renamed or {}), dict(known)
    paths = [find(name) for name in files]
    try:
        for path in paths:
            _parse_text(path.read_text(encoding="utf-8"), str(path))
        _parse_text("\n".join(bindings), "the command line")
        _check_values(gin_config._CONFIG)
        for name in _MISSING_VALUE.findall(gin.config_str()):
            if name in (defaults or {}):
                gin.parse_config(f"{name} = {(defaults or {})[name]!r}")
        gin.finalize()
    except (ValueError, SyntaxError, tokenize.TokenError, OSError) as error:
        message = explain_unquoted_text(str(error), paths, bindings)
        if message is None and isinstance(error, ValueError):
            message = _explain(str(error), known)
        message = message or f"A gin file or binding cannot be read: {error}"
        raise ValueError(message) from error


def _parse_text(text: str, name: str) -> None:
    """Parse gin text; files that it includes are found as `find` does.

    Gin's own search takes `include 'models/vit.gin'` for a module of a Python package,
    and fails where the current folder has a folder `models`.
    """
    lines = text.splitlines(keepends=True)
    start = 0
    for number, line in enumerate([*lines, "include ''"]):
        include = _INCLUDE.match(line)
        if not include:
            continue
        # Empty lines in front keep the line numbers of gin's messages.
        part = io.StringIO("\n" * start + "".join(lines[start:number]))
        part.name = name  # type: ignore[misc]
        gin.parse_config(part)
        if include[1]:
            path = find(include[1])
            _parse_text(path.read_text(encoding="utf-8"), str(path))
        start = number + 1


def operative_text() -> str:
    """Return the configuration as a gin file: every binding and all defaults in use.

    Bindings of functions that have not been called yet, such as the loss before the
    first step, come last. So a run that is killed early can be repeated too.
    """
    operative = gin.operative_config_str()
    used = set(_BINDING.findall(operative))
    later = [text for text in _BINDING.findall(gin.config_str()) if text not in used]
    if not later:
        return operative
    return "\n".join([operative, "# Bound as well:", *later, ""]).lstrip()


def effective_settings(
    roots: Mapping[str, Callable[..., Any]],
) -> dict[str, tuple[str, str]]:
    """Return every setting that the roots read, defaults included.

    Args:
        roots: Functions by selector, such as {"vit_scaling.Experiment": Experiment}.

    Returns:
        {"train/TFRecords.pattern": ("TRAIN_PATTERN", "'x-*'"), …}: by scope, function
        and parameter, the name that binds the setting and the value as text.
    """
    settings: dict[str, tuple[str, str]] = {}
    to_visit: list[Any] = [((), *root) for root in roots.items()]
    while to_visit:
        scopes, selector, _ = call = to_visit.pop()
        for parameter, (scope, bound) in _arguments(*call).items():
            key = _binding_name(("/".join(scopes), selector), parameter)
            if key in settings:
                continue
            value = _without_macros(bound)
            text = (
                repr(value) if not inspect.isfunction(value) else f"@{value.__name__}"
            )
            name = _binding_name((scope, selector), parameter)
            settings[key] = "/".join(bound.scopes) if _is_macro(bound) else name, text
            for reference in gin_config.iterate_references({"": value}):
                target = reference.configurable
                inner = tuple(reference.scopes) or scopes
                to_visit.append((inner, target.selector, target.wrapped))
    return settings


def _arguments(
    scopes: tuple[str, ...], selector: str, function: Callable[..., Any]
) -> dict[str, tuple[str, Any]]:
    """Return a call's arguments by parameter: the scope that binds it, the value."""
    arguments = {
        parameter.name: ("", parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty
    }
    for depth in range(len(scopes) + 1):  # A scope also reads its outer scopes.
        scope = "/".join(scopes[:depth])
        bindings = _config.get((scope, selector), {})
        arguments |= {name: (scope, value) for name, value in bindings.items()}
    return arguments


def _without_macros(value: Any) -> Any:
    """Return a bound value with every macro replaced by the macro's value."""
    if _is_macro(value):
        return _without_macros(_config[value.config_key]["value"])
    if isinstance(value, dict):
        return {key: _without_macros(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_macros(item) for item in value)
    return value


def _is_macro(value: Any) -> bool:
    return isinstance(value, gin_config.ConfigurableReference) and (
        value.configurable.selector == MACRO
    )


@gin_config.register_finalize_hook
def _check_all_bindings_are_read(config: dict[Any, Any]) -> None:
    """Raise if a binding cannot be reached from a root."""
    global _config
    _config = config
    if not _roots:
        return
    _raise_if_renamed(config)
    read: set[tuple[str, str]] = set()
    seen: set[Any] = set()
    to_visit: list[tuple[tuple[str, ...], str]] = [((), name) for name in _roots]
    while to_visit:
        scopes, name = node = to_visit.pop()
        if node in seen:
            continue
        seen.add(node)
        for depth in range(len(scopes) + 1):  # A scope also reads its outer scopes.
            key = "/".join(scopes[:depth]), name
            read.add(key)
            for reference in gin_config.iterate_references(config.get(key, {})):
                inner = tuple(reference.scopes) or scopes
                to_visit.append((inner, reference.configurable.selector))
    _raise_if_unread(config, read)


def _raise_if_renamed(config: Mapping[Any, Any]) -> None:
    """Raise for an old name that a configurable would accept among its **kwargs."""
    for (_, selector), parameters in config.items():
        for parameter in parameters:
            name = f"{selector.rpartition('.')[2]}.{parameter}"
            if name in _renamed:
                raise ValueError(_renamed_text(name))


def _renamed_text(name: str) -> str:
    return f"{name} was renamed: bind {_renamed[name]}."


def _raise_if_unread(config: Mapping[Any, Any], read: set[tuple[str, str]]) -> None:
    unread = sorted(set(config) - read)
    names = [_binding_name(key, one) for key in unread for one in config[key]]
    if not names:
        return
    macros = (key for key in read if key[1] == MACRO and key[0])
    known = {_binding_name(key, "value") for key in macros}
    known |= {_binding_name(key, one) for key in read for one in config.get(key, ())}
    listed = [
        name + "".join(f" (did you mean {near}?)" for near in nearest(name, known))
        for name in names
    ]
    raise ValueError(
        f"No run reads these gin bindings: {', '.join(listed)}. Correct the name or "
        "scope, or remove the binding."
    )


def _check_values(config: Mapping[Any, Any]) -> None:
    """Check every bound value against the annotation of its argument.

    Raises:
        ValueError: A value has the wrong type or is out of range.
    """
    for (scope, selector), parameters in config.items():
        function = _known.get(selector.rpartition(".")[2])
        if function is None:
            continue
        for parameter, bound in parameters.items():
            try:
                value = _resolve(bound, config)
                check_argument(function, parameter, value)
            except _UnknownValueError:
                continue
            except ValueError as error:
                name = _binding_name((scope, selector), parameter)
                raise ValueError(f"{name}: {error}{_hint(bound, value)}") from None


class _UnknownValueError(Exception):
    """The value is required and missing, or the result of a function of any type."""


def _resolve(bound: Any, config: Mapping[Any, Any]) -> Any:
    """Replace macros by their values, and references by functions and instances."""
    if isinstance(bound, list | tuple):
        return type(bound)(_resolve(item, config) for item in bound)
    if isinstance(bound, dict):
        return {key: _resolve(item, config) for key, item in bound.items()}
    if bound is gin.REQUIRED:
        raise _UnknownValueError
    if not isinstance(bound, gin_config.ConfigurableReference):
        return bound
    if bound.configurable.selector == MACRO:
        macro = config.get(("/".join(bound.scopes), MACRO), {})
        if "value" not in macro:
            raise _UnknownValueError
        return _resolve(macro["value"], config)
    function = bound.configurable.wrapped
    return _instance_of_result(function) if bound.evaluate else function


def _instance_of_result(function: Callable[..., Any]) -> Any:
    """Return an uninitialised instance of what a call returns, for its type alone."""
    is_class = inspect.isclass(function)
    result = function if is_class else annotations_of(function).get("return")
    if not inspect.isclass(result):
        raise _UnknownValueError
    try:
        return object.__new__(result)
    except TypeError as error:  # Of a built-in type, such as int.
        raise _UnknownValueError from error


def _hint(bound: Any, value: Any) -> str:
    """Return how to correct a rejected value, or ""."""
    if isinstance(bound, gin_config.ConfigurableReference):
        if bound.configurable.selector == MACRO:
            return f" Correct the macro {'/'.join(bound.scopes)}."
        with_or_without = "without" if bound.evaluate else "with"
        call = "" if bound.evaluate else "()"
        return f" Write @{bound.selector}{call} {with_or_without} parentheses."
    if isinstance(value, str):
        return " Numbers, True, False and None have no quotes."
    return ""


def _binding_name(key: tuple[str, str], parameter: str) -> str:
    scope, selector = key
    if selector == MACRO:
        return scope
    name = f"{selector.removeprefix('vit_scaling.')}.{parameter}"
    return f"{scope}/{name}" if scope else name


def _explain(message: str, known: Mapping[str, Callable[..., Any]]) -> str:
    """Return gin's message with the nearest known name, or with all missing values."""
    missing = _MISSING_VALUE.findall(gin.config_str())
    if missing and "gin.REQUIRED" in message:
        return _explain_missing_values(missing)
    first, *more = message.splitlines() or [
        ""
    ]  # The other lines list positions in files.
    if "doesn't have a parameter" in first or "No configurable matching" in first:
        for name in _renamed:
            binding = rf"(?:^|[\s/.]){re.escape(name)}\s*="
            if any(re.search(binding, line) for line in more):
                return "\n".join([_renamed_text(name), *more])
    return "\n".join([first + _suggestion(message, known), *more])


def _explain_missing_values(names: Sequence[str]) -> str:
    """Return the message for macros without a value, with misspelt bindings if any."""
    message = (
        f"Values are required for: {', '.join(names)}. Pass each as "
        "--gin_param='NAME = value', or set it in a gin file."
    )
    gin.parse_config([f"{name} = None" for name in names])
    try:
        gin.finalize()  # Now unread bindings, perhaps misspelt macros, are reported.
    except ValueError as error:
        return f"{message} {error}"
    return message


def _suggestion(message: str, known: Mapping[str, Callable[..., Any]]) -> str:
    """Return " Did you mean …?" for gin's message about an unknown name, or ""."""
    configurable = re.search(
        r"No configurable matching (?:reference )?['\"]@?([\w./]+)", message
    )
    if configurable:
        return did_you_mean(re.split(r"[./]", configurable[1])[-1], known)
    parameter = _UNKNOWN_PARAMETER.search(message)
    if parameter and parameter[1] in known:
        parameters = inspect.signature(known[parameter[1]]).parameters
        return did_you_mean(parameter[2], parameters)
    return ""
