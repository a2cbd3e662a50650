"""Gin can bind every part of a run once, and no argument set by flags."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import inspect
import re

import gin
import pytest

from vit_scaling import configurables, gin_files
from vit_scaling.training import settings

FILES = ["quickstart"]
DATA = ["TRAIN_PATTERN = 'train-*'", "EVAL_PATTERN = 'test-*'"]


def test_names_are_unique_and_in_order():
    names = [part.__name__ for part in configurables.PARTS]
    assert len(set(names)) == len(names)
    places = [(part.__module__, part.__name__) for part in configurables.PARTS]
    assert len(set(places)) == len(places)
    assert not set(names) & set(configurables.ROOTS)


@pytest.mark.parametrize("part", configurables.PARTS, ids=lambda part: part.__name__)
def test_every_part_is_registered_with_gin_and_unchanged_itself(part):
    found = gin.get_configurable(f"vit_scaling.{part.__name__}")
    assert found is not part  # Direct calls in Python are never altered.
    assert "gin" not in getattr(inspect.unwrap(part), "__module__", "").split(".")


@pytest.mark.parametrize("name", ["model_dir", "strategy", "jit_compile", "experiment"])
@pytest.mark.parametrize("root", ["evaluate", "evaluate_continuously"])
def test_arguments_set_by_flags_cannot_be_bound(root, name):
    with pytest.raises(ValueError, match=f"denylisted.*{name}|{name}.*denylist"):
        configurables.parse(FILES, [*DATA, f"{root}.{name} = 'x'"])


@pytest.mark.parametrize(
    "name",
    ["evaluate", "jit_compile", "branch_at", "profile_steps", "peak_flops_per_core"],
)
def test_options_set_by_the_binary_cannot_be_bound(name):
    with pytest.raises(ValueError, match=f"denylisted kwarg '{name}'"):
        configurables.parse(FILES, [*DATA, f"RunOptions.{name} = None"])


def test_every_other_option_can_be_bound_and_was_an_argument_of_train():
    fields = {field.name for field in dataclasses.fields(configurables.RunOptions)}
    set_by_flags = {
        "evaluate",
        "jit_compile",
        "branch_at",
        "profile_steps",
        "peak_flops_per_core",
    }
    for name in fields - set_by_flags:
        renamed = configurables.RENAMED_BINDINGS[f"train.{name}"]
        assert renamed == f"RunOptions.{name}"


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Adan.beta1 = 0.9", "Did you mean 'Adam'"),
        ("Adam.beta_1 = 0.9", "Did you mean 'beta1'"),
        ("TOTAL_STEP = 5", r"TOTAL_STEP \(did you mean TOTAL_STEPS\?\)"),
        (
            "trian/TFRecords.pattern = 'x'",
            r"trian/TFRecords\.pattern \(did you mean train/TFRecords\.pattern\?\)",
        ),
        ("vit.haed = 'gap'", "Did you mean 'head'"),
        ("LOSS = @softmax_crossentropy", "Did you mean 'softmax_cross_entropy'"),
        ("Momentum.nesterov = True", r"No run reads.*Momentum\.nesterov"),
    ],
)
def test_misspelt_names_raise_before_anything_is_built(binding, message):
    with pytest.raises(ValueError, match=message):
        configurables.parse(FILES, [*DATA, binding])


def test_all_missing_values_are_named():
    with pytest.raises(ValueError, match=r"required for: EVAL_PATTERN, TRAIN_PATTERN"):
        configurables.parse(FILES)


def test_an_experiment_is_built_from_the_bindings():
    configurables.parse(FILES, [*DATA, "BATCH_SIZE = 48", "TOTAL_STEPS = 9000"])
    experiment = configurables.Experiment()
    assert experiment.batch_size == 48
    assert experiment.schedule.total_steps == 9000
    assert experiment.loss.__name__ == "sigmoid_cross_entropy"
    assert experiment.train_data.source.pattern == "train-*"
    assert experiment.eval_data.source.pattern == "test-*"
    assert experiment.train_data.classes == experiment.eval_data.classes == 10


@pytest.mark.parametrize("old", configurables.RENAMED_BINDINGS)
def test_an_earlier_name_of_a_binding_raises_with_the_new_name(old):
    new = configurables.RENAMED_BINDINGS[old]
    name, _, parameter = new.partition(".")
    known = {part.__name__: part for part in configurables.PARTS} | configurables.ROOTS
    assert parameter in inspect.signature(known[name]).parameters
    with pytest.raises(ValueError, match=f"^{old} was renamed: bind {new}."):
        configurables.parse(FILES, [*DATA, f"{old} = None"])


# What may happen to settings when a run resumes.

KNOWN = {part.__name__: part for part in configurables.PARTS} | configurables.ROOTS
TABLES = {"fixed": settings.FIXED, "exact": settings.EXACT, "initial": settings.INITIAL}
# Macros of gin files with which a run cannot resume, or not without permission.
REJECTED_MACROS = {
    "fixed": {"CLASSES", "DEPTH", "HEAD", "IMAGE_SIZE", "SHAPE"},
    "exact": {"BATCH_SIZE", "SEED", "SHUFFLE_WINDOW", "TRAIN_FRACTION"},
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_settings_name_arguments_of_parts(table):
    for name in set(TABLES[table]) - {settings.TRAIN_DATA}:
        function, _, parameter = name.partition(".")
        assert parameter in inspect.signature(KNOWN[function]).parameters, name


def test_every_setting_is_in_one_table_at_most():
    assert sum(map(len, TABLES.values())) == len(set().union(*TABLES.values()))


def test_every_argument_of_a_model_is_sorted():
    """A new argument must be added to a table, or here: it may change."""
    may_change = {
        "vit.attention_chunk",
        "vit.dropout",
        "vit.dtype",
        "vit.rematerialize",
    }
    may_change |= {"vit.stochastic_depth", "vit.input_tensor", "keras_backbone.dtype"}
    names = {
        f"{name}.{parameter}"
        for name in ("vit", "keras_backbone", "as_shape", "ViTShape")
        for parameter in inspect.signature(KNOWN[name]).parameters
    }
    assert names == may_change | names & set().union(*TABLES.values())


def test_every_macro_of_gin_files_is_sorted_by_what_it_binds():
    macros, found = set(), {"fixed": set(), "exact": set()}
    for path in gin_files.root().rglob("*.gin"):
        for name, value in re.findall(r"^(\S+)\s*= *(.*)", path.read_text(), re.M):
            if name.isupper():
                macros.add(name)
            for macro in re.findall(r"%([A-Z_0-9]+)", value):
                for table in found:
                    if name.rpartition("/")[2] in TABLES[table]:
                        found[table].add(macro)
    assert "TOTAL_STEPS" in macros and macros > set().union(*found.values())
    found["exact"] -= found["fixed"]
    assert found == REJECTED_MACROS


def test_folders_named_as_gin_folders_do_not_hide_the_package_files(
    tmp_path, monkeypatch
):
    for name in ("data", "models", "runtime"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # As `python -m` does.
    configurables.parse(
        ["experiments/vit_b16.gin"],
        ["TRAIN_PATTERN = 'x'", "EVAL_PATTERN = 'x'", "TOTAL_STEPS = 10"],
        defaults={"BATCH_SIZE": 8},
    )
    assert gin.query_parameter("vit.image_size").scoped_configurable_fn() == 224


def test_bindings_may_include_files():
    configurables.parse(
        [], ["include 'models/vit.gin'", "SHAPE = 'S/16'"], {"CLASSES": 5}
    )
