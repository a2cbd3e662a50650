"""Argument types with ranges, and the check of values against them."""
# SPDX-License-Identifier: Apache-2.0

import collections.abc
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from vit_scaling.naming import did_you_mean

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Gt(0), Le(1)]
Probability = Annotated[float, Ge(0), Lt(1)]
Decay = Annotated[float, Gt(0), Lt(1)]
# A pixel's value, for all channels or for red, green and blue.
PixelValue = float | tuple[float, float, float]
ValueRange = (
    tuple[float, float] | tuple[tuple[float, float, float], tuple[float, float, float]]
)
Interpolation = Literal["bilinear", "bicubic", "lanczos"]  # Pillow's filters.

_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
_NAMES |= {type(None): "None", Any: "any value"}
_RANGES = {Ge: ("at least", "ge"), Gt: ("above", "gt")}
_RANGES |= {Le: ("at most", "le"), Lt: ("below", "lt")}


@dataclasses.dataclass(frozen=True)
class Check:
    """Metadata of an `Annotated` type: a function that raises ValueError.

    Attributes:
        function: Called with the value.
        rule: What the value must be, as in "must be …".
    """

    function: Callable[[Any], Any]
    rule: str


def check_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that checks all arguments of every call against the annotations."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if signature.parameters[name].kind not in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            ):
                check_argument(function, name, value)
        return function(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]  # For gin.
    return checked


def check_fields(instance: Any) -> None:
    """Check all fields of a dataclass; call it in `__post_init__`.

    Raises:
        ValueError: A value has another type, or is out of range.
    """
    for field in dataclasses.fields(instance):
        check_argument(type(instance), field.name, getattr(instance, field.name))


def check_argument(function: Callable[..., Any], name: str, value: Any) -> None:
    """Check a value against the annotation of a function's argument.

    Nothing is converted: a quoted number or boolean, a boolean for a number, and a
    fraction for an integer are errors. Accepted are an integer for a float and a list
    for a tuple.

    Args:
        function: A function or class; arguments without an annotation accept anything.
        name: The argument. Unknown names are left to the call itself.
        value: The value that the function would be called with.

    Raises:
        ValueError: The value has another type, or is out of the annotated range.
    """
    # Here, since it takes a tenth of a second that `import vit_scaling` need not wait.
    import pydantic

    annotation = annotations_of(function).get(name, Any)
    try:
        _adapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        causes = [each.get("ctx", {}).get("error", "") for each in error.errors()]
        details = [str(cause) for cause in causes if str(cause)]
        detail = f" ({'; '.join(dict.fromkeys(details))})" if details else ""
        is_text = isinstance(value, str)
        suggestion = did_you_mean(value, _choices(annotation)) if is_text else ""
        raise ValueError(
            f"`{name}` must be {_describe(annotation)}; received {_shorten(value)}"
            f"{detail}.{suggestion}"
        ) from None


@functools.cache
def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a function's or a class's arguments, with their ranges."""
    target = function.__init__ if inspect.isclass(function) else function  # type: ignore[misc]
    return typing.get_type_hints(inspect.unwrap(target), include_extras=True)


def _describe(annotation: Any) -> str:
    """Return what a value must be, such as "an integer of at least 1, or None"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _NAMES:
        return _NAMES[annotation]
    if collections.abc.Callable in (origin, annotation):
        return "a function"
    if origin in _DESCRIPTIONS:
        return _DESCRIPTIONS[origin](arguments)
    return f"of type {getattr(annotation, '__name__', annotation)}"


def _describe_sequence(arguments: tuple[Any, ...]) -> str:
    return f"a list of values, each {_describe(arguments[0])}"


def _describe_union(arguments: tuple[Any, ...]) -> str:
    return ", or ".join(map(_describe, arguments))


def _describe_range(arguments: tuple[Any, ...]) -> str:
    base, *metadata = arguments
    rules = [item.rule for item in metadata if isinstance(item, Check)]
    if rules:
        return "; ".join(rules)
    limits = [
        f"{words} {getattr(item, name)}"
        for item in metadata
        for kind, (words, name) in _RANGES.items()
        if isinstance(item, kind)
    ]
    of = "of " if limits[0].startswith("at") else ""
    return f"{_describe(base)} {of}{' and '.join(limits)}"


# From the origin of a generic type to the description of its arguments.
_DESCRIPTIONS: dict[Any, Callable[[tuple[Any, ...]], str]] = {
    Annotated: _describe_range,
    typing.Literal: lambda arguments: f"one of {', '.join(map(repr, arguments))}",
    typing.Union: _describe_union,
    types.UnionType: _describe_union,
    tuple: lambda arguments: f"({', '.join(map(_describe, arguments))})",
    collections.abc.Sequence: _describe_sequence,
    collections.abc.Iterable: _describe_sequence,
    collections.abc.Mapping: lambda _: "a dict",
}


def _shorten(value: Any) -> str:
    try:
        text = repr(value)
    except AttributeError:  # An instance without values stands for a gin reference.
        text = f"{type(value).__name__}()"
    return text if len(text) < 200 else f"{text[:200]}…"


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the strings that an annotation lists."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return arguments
    return tuple(each for argument in arguments for each in _choices(argument))


@functools.cache
def _adapter(annotation: Any) -> Any:
    import pydantic

    strict = pydantic.ConfigDict(strict=True, allow_inf_nan=False)
    return pydantic.TypeAdapter(_by_instance(annotation), config=strict)


def _by_instance(annotation: Any) -> Any:
    """Replace classes by instance checks, which don't look into the classes' fields."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _NAMES or origin is typing.Literal:
        return annotation
    if origin is Annotated:
        metadata = [
            _validator(item.function) if isinstance(item, Check) else item
            for item in arguments[1:]
        ]
        return Annotated[(_by_instance(arguments[0]), *metadata)]
    if collections.abc.Callable in (origin, annotation):
        return Annotated[Any, _validator(functools.partial(_check_callable, arguments))]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_by_instance, arguments))]  # noqa: UP007
    if origin is not None:
        return _container(origin, arguments)
    if getattr(annotation, "_is_protocol", False):
        return Any
    return Annotated[Any, _validator(functools.partial(_check_instance, annotation))]


def _validator(check: Callable[[Any], Any]) -> Any:
    """Return pydantic's validator that calls `check` and keeps the value."""
    import pydantic

    def validate(value: Any) -> Any:
        check(value)
        return value

    return pydantic.AfterValidator(validate)


def _check_callable(types_of_call: tuple[Any, ...], value: Any) -> None:
    """Raise unless a value takes as many arguments as annotated and returns the type.

    Arguments are counted for functions and classes. Results are compared where both
    annotations are classes.
    """
    parameters, returned = types_of_call or (..., Any)
    if not callable(value):
        raise ValueError("it cannot be called")
    expected = returned if inspect.isclass(returned) and returned is not Any else object
    if expected is not object and isinstance(value, expected):
        raise ValueError(f"it is a {expected.__name__}, not a function that makes one")
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return
    result = value if inspect.isclass(value) else annotations_of(value).get("return")
    if inspect.isclass(result) and not issubclass(result, expected):
        raise ValueError(f"it makes a {result.__name__}, not a {expected.__name__}")
    try:
        if parameters is not ...:
            inspect.signature(value).bind_partial(*parameters)
    except TypeError as error:
        count = len(parameters)
        raise ValueError(f"it cannot take {count} argument(s): {error}") from None


def _check_instance(kind: type, value: Any) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"it is a {type(value).__name__}")


def _container(origin: Any, arguments: tuple[Any, ...]) -> Any:
    import pydantic

    items = tuple(item if item is ... else _by_instance(item) for item in arguments)
    if origin is tuple:
        return Annotated[tuple[items], pydantic.BeforeValidator(_list_as_tuple)]  # type: ignore[valid-type]
    if origin is collections.abc.Mapping:
        return origin[items]
    # Also for an iterable, since an iterator could be used only once.
    sequence = collections.abc.Sequence[items]  # type: ignore[valid-type]
    return Annotated[sequence, pydantic.BeforeValidator(_reject_text)]


def _list_as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _reject_text(value: Any) -> Any:
    if isinstance(value, str | bytes):  # A sequence of letters.
        raise ValueError("it is text")
    return value
