"""Find, parse and check gin files: a name that nothing reads is refused."""
# SPDX-License-Identifier: Apache-2.0

import difflib
import inspect
import logging
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config

MACRO = "gin.macro"
# A binding as gin prints it: on one line, or indented behind a backslash.
_BINDING = re.compile(r"^\S+ = (?:\\(?:\n {4}.*)+|.+)", re.MULTILINE)
_UNKNOWN_PARAMETER = re.compile(
    r"Configurable '(?:\w+\.)*(\w+)' doesn't have a parameter named '(\w+)'"
)
_WITHOUT_VALUE = re.compile(r"^(\S+) = %gin\.REQUIRED$", re.MULTILINE)
_roots: tuple[str, ...] = ()
_renamed: dict[str, str] = {}


def root() -> Path:
    """Return the folder of the package's gin files, installed or beside the code."""
    package = Path(__file__).parent
    installed = package / "gin_data"
    return installed if installed.is_dir() else package.parent / "gin"


def find(name: str) -> Path:
    """Return the gin file of a name such as "experiments/vit_b16.gin", or of a path.

    A name may leave out its folder and ".gin" where that names one file only.

    Raises:
        FileNotFoundError: There is none; the nearest names are told.
    """
    for path in (Path(name), root() / name, root() / f"{name}.gin"):
        if path.is_file():
            return path
    known = sorted(
        path.relative_to(root()).as_posix() for path in root().rglob("*.gin")
    )
    named = [path for path in known if Path(path).stem == Path(name).stem]
    if len(named) == 1 and "/" not in name:
        return root() / named[0]
    near = named or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if not near:  # Perhaps a name without its folder.
        stems = {Path(path).stem: path for path in known}
        near = [stems[s] for s in difflib.get_close_matches(name, stems, n=3)]
    told = f" Did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(
        f"`gin_file` must be a path or a name in the package's gin folder; received "
        f"{name!r}.{told}"
    )


def parse(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    *,
    known: Mapping[str, Callable[..., Any]],
    roots: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Parse gin files in order, then bindings, and refuse what no run would read.

    Args:
        files: Paths or names; a later file wins over an earlier one.
        bindings: Such as "TOTAL_STEPS = 1000"; they win over all files.
        known: What may be bound, by name; its names are proposed for misspelt ones.
        roots: Selectors of what a run begins with, such as "vit_scaling.train".
        defaults: Values of required macros that nobody set, where a program can do
            without them, such as the data's pattern where none are read.
        renamed: Earlier names of bindings and the present ones, such as
            {"train.keep_last": "RunOptions.keep_last"}.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A name or parameter is misspelt, a scope or macro is read by nobody,
            or a required value is missing.
    """
    global _roots, _renamed
    _roots, _renamed = tuple(roots), dict(renamed or {})
    gin.add_config_file_search_path(str(root()))
    paths = [str(find(name)) for name in files]
    logging.disable(logging.ERROR)  # Gin logs each place where a file is not.
    try:
        gin.parse_config_files_and_bindings(
            paths, list(bindings), finalize_config=False
        )
        for name in _WITHOUT_VALUE.findall(gin.config_str()):
            if name in (defaults or {}):
                gin.parse_config(f"{name} = {(defaults or {})[name]!r}")
        gin.finalize()
    except ValueError as error:
        raise ValueError(_explained(str(error), known)) from error
    except (SyntaxError, tokenize.TokenError, OSError) as error:
        raise ValueError(f"A gin file or binding cannot be read: {error}") from error
    finally:
        logging.disable(logging.NOTSET)


def operative_text() -> str:
    """Return the configuration as a gin file: every binding, and the defaults in use.

    Bindings of what was not called yet, such as a loss before the first step, come
    last: a run that is killed on the way can be repeated all the same.
    """
    operative = gin.operative_config_str()
    used = set(_BINDING.findall(operative))
    later = [text for text in _BINDING.findall(gin.config_str()) if text not in used]
    if not later:
        return operative
    return "\n".join([operative, "# Bound as well:", *later, ""]).lstrip()


@gin_config.register_finalize_hook
def _refuse_unread_bindings(config: dict[Any, Any]) -> None:
    """Raise if a binding is not reached from a root; gin refuses missing ones."""
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
    """Raise for an earlier name that a configurable takes as one of its **kwargs."""
    for (_, selector), parameters in config.items():
        for parameter in parameters:
            name = f"{selector.rpartition('.')[2]}.{parameter}"
            if name in _renamed:
                raise ValueError(_renamed_text(name))


def _renamed_text(name: str) -> str:
    return f"{name} was renamed: bind {_renamed[name]}."


def _raise_if_unread(config: Mapping[Any, Any], read: set[tuple[str, str]]) -> None:
    unread = sorted(set(config) - read)
    names = [_shown(key, parameter) for key in unread for parameter in config[key]]
    if not names:
        return
    good = {_shown(key, "value") for key in read if key[1] == MACRO}
    good |= {_shown(key, p) for key in read for p in config.get(key, ())}
    told = []
    for name in names:
        near = difflib.get_close_matches(name, good, n=1)
        told.append(f"{name} (did you mean {near[0]}?)" if near else name)
    raise ValueError(
        f"No run reads these gin bindings: {', '.join(told)}. Correct the name or "
        "scope, or leave the binding out."
    )


def _shown(key: tuple[str, str], parameter: str) -> str:
    scope, selector = key
    if selector == MACRO:
        return scope
    name = f"{selector.removeprefix('vit_scaling.')}.{parameter}"
    return f"{scope}/{name}" if scope else name


def _explained(message: str, known: Mapping[str, Callable[..., Any]]) -> str:
    """Return gin's message with the nearest right name, or all values that miss."""
    missing = _WITHOUT_VALUE.findall(gin.config_str())
    if missing and "gin.REQUIRED" in message:
        return _missing_values(missing)
    first, *more = message.splitlines() or [""]  # Then the places in the files.
    parameter = _UNKNOWN_PARAMETER.search(first)
    name = ".".join(parameter.groups()) if parameter else ""
    if name in _renamed:
        return "\n".join([_renamed_text(name), *more])
    return "\n".join([first + _suggestion(message, known), *more])


def _missing_values(names: Sequence[str]) -> str:
    """Return what to say of names without a value: perhaps they were misspelt."""
    told = (
        f"Values are required for: {', '.join(names)}. Pass each as "
        "--gin_param='NAME = value', or set it in a gin file."
    )
    gin.parse_config([f"{name} = None" for name in names])
    try:
        gin.finalize()  # Gin names what misses before it asks what nothing reads.
    except ValueError as error:
        return f"{told} {error}"
    return told


def _suggestion(message: str, known: Mapping[str, Callable[..., Any]]) -> str:
    """Return " Did you mean …?" for gin's message about an unknown name, or nothing."""
    configurable = re.search(
        r"No configurable matching (?:reference )?['\"]@?([\w./]+)", message
    )
    if configurable:
        wanted = configurable[1].split(".")[-1].split("/")[-1]
        near = difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.3)
        return f" Did you mean {near[0]!r}?" if near else ""
    parameter = _UNKNOWN_PARAMETER.search(message)
    if parameter:
        target = known.get(parameter[1])
        names = list(inspect.signature(target).parameters) if target else []
        near = difflib.get_close_matches(parameter[2], names, n=1, cutoff=0.3)
        return f" Did you mean {near[0]!r}?" if near else ""
    return ""
