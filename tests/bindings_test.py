"""Every binding and every macro rejects values of wrong types and out of range.

The wrong values are derived from the annotation of each argument.
"""
# SPDX-License-Identifier: Apache-2.0

import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence

import gin
import pytest
from annotated_types import Ge, Gt, Le, Lt

from vit_scaling import configurables, gin_files
from vit_scaling.argument_types import Check, annotations_of, check_argument
from vit_scaling.training.evaluator import InLoopEvaluator

KNOWN = {part.__name__: part for part in configurables.PARTS} | configurables.ROOTS
# Set by programs: gin does not allow to bind them.
PER_LAUNCH = {"experiment", "model_dir", "strategy", "jit_compile", "step", "evaluate"}
PER_LAUNCH |= {"report", "branch_at", "profile_steps", "peak_flops_per_core"}
PER_LAUNCH |= {"target"}  # The training data.
# What the training step passes, as tensors.
TENSORS = {"logits", "labels"}
# Arguments of any type: a source's names, and a tensor for use in Python.
ANY = {"class_names_of.source", "vit.input_tensor", "load_for_finetuning.target"}
ANY_ITEMS = {Sequence[typing.Any], Sequence[InLoopEvaluator]}


@pytest.fixture(autouse=True)
def empty_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def alternatives(annotation):
    """Return the types of a union, each with the metadata of its range."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return [each for one in arguments for each in alternatives(one)]
    if origin is typing.Annotated:
        return [(arguments[0], arguments[1:])]
    return [(annotation, ())]


def wrong_values(annotation):
    """Return gin literals that an argument with this annotation must reject."""
    options = alternatives(annotation)
    bases = {typing.get_origin(base) or base for base, _ in options}
    metadata = [item for _, items in options for item in items]
    if any(isinstance(item, Check) for item in metadata):  # Lengths of schedules.
        return ["'x'", "-1", "2.5", "True", "None", "('days', 3)"]
    texts, lists = {str, typing.Literal}, {tuple, Sequence, Iterable}
    candidates = [
        ("True", not bases & {bool}),
        ("'1'", not bases & texts),
        ("'False'", not bases & texts),
        ("'no such choice'", typing.Literal in bases and str not in bases),
        ("None", type(None) not in bases),
        ("7", not bases & {int, float}),
        ("2.5", float not in bases),
        ("1e999", float in bases),
        ("-1e999", float in bases),
        ("(1, 2, 3)", not bases & lists),
        ("[None]", bases & {Sequence, Iterable} and annotation not in ANY_ITEMS),
        ("{'key': 1}", Mapping not in bases),
        ("@Mixup", any(makes_another_type(base) for base, _ in options)),
    ]
    values = [value for value, is_wrong in candidates if is_wrong]
    # The nearest numbers out of a range.
    nearest = {Ge: -1, Gt: 0, Le: 1, Lt: 0}
    for item in metadata:
        (limit,) = vars_of(item)
        values.append(repr(limit + nearest[type(item)]))
    return values


def makes_another_type(annotation):
    """Whether the annotation is of functions whose results are no `Mixup`."""
    if typing.get_origin(annotation) is not Callable:
        return False
    returned = typing.get_args(annotation)[1]
    return returned is not typing.Any and inspect.isclass(returned)


def vars_of(limit):
    values = [getattr(limit, name, None) for name in ("ge", "gt", "le", "lt")]
    return [value for value in values if value is not None]


def bindable():
    for name, function in KNOWN.items():
        kinds = inspect.signature(function).parameters
        for argument, annotation in annotations_of(function).items():
            if argument in ("return", *PER_LAUNCH, *TENSORS):
                continue
            if kinds[argument].kind is inspect.Parameter.VAR_POSITIONAL:
                continue
            yield pytest.param(name, argument, annotation, id=f"{name}.{argument}")


BINDABLE = list(bindable())


def test_every_bindable_argument_has_a_type():
    untyped = {
        f"{name}.{argument}"
        for name, function in KNOWN.items()
        for argument in inspect.signature(function).parameters
        if annotations_of(function).get(argument, typing.Any) is typing.Any
    }
    assert untyped == ANY


@pytest.mark.parametrize(("name", "argument", "annotation"), BINDABLE)
def test_wrong_values_of_a_binding_are_rejected_at_parsing(name, argument, annotation):
    if f"{name}.{argument}" in ANY or getattr(annotation, "_is_protocol", False):
        return
    values = list(wrong_values(annotation))
    assert values
    for value in values:
        gin.clear_config()
        message = rf"^{name}\.{argument}: `{argument}` must be .*; received "
        with pytest.raises(ValueError, match=message):
            configurables.parse([], [f"{name}.{argument} = {value}"])
            pytest.fail(f"{name}.{argument} = {value} was accepted.")


@pytest.mark.parametrize(("name", "argument", "annotation"), BINDABLE)
def test_defaults_are_accepted(name, argument, annotation):
    default = inspect.signature(KNOWN[name]).parameters[argument].default
    if default is not inspect.Parameter.empty and "factory" not in repr(default):
        check_argument(KNOWN[name], argument, default)


def macros_of_files():
    """Yield file, macro and the bindings that read it, of every file in gin/."""
    for path in sorted(gin_files.root().rglob("*.gin")):
        text = path.read_text(encoding="utf-8")
        reads = re.findall(r"^(?:\w+/)*(\w+)\.(\w+) = %([A-Z_]+)\b", text, re.M)
        for (name, argument), group in itertools.groupby(reads, lambda row: row[:2]):
            for *_, macro in group:
                file = path.relative_to(gin_files.root()).as_posix()
                yield pytest.param(
                    file, macro, name, argument, id=f"{file}-{macro}-{name}.{argument}"
                )


@pytest.mark.parametrize(("file", "macro", "name", "argument"), list(macros_of_files()))
def test_wrong_values_of_a_macro_are_rejected_at_parsing(file, macro, name, argument):
    annotation = annotations_of(KNOWN[name])[argument]
    for value in wrong_values(annotation):
        gin.clear_config()
        with pytest.raises(ValueError, match=rf"must be .*Correct the macro {macro}\."):
            configurables.parse([file], [f"{macro} = {value}"])
            pytest.fail(f"{macro} = {value} was accepted.")
