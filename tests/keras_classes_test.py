"""Importing the package is enough for Keras to load a model that it saved."""
# SPDX-License-Identifier: Apache-2.0

import importlib

import keras
import pytest

import vit_scaling
from tests.imports_test import run
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.update_rules import RULE_CLASSES

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    vit("mu/16", image_size=32, classes=3, dropout=0.1, register_tokens=1).save(path)
    return path


@pytest.mark.parametrize(
    "imports", ["import vit_scaling, keras", "import keras, vit_scaling"]
)
def test_a_saved_model_loads_after_importing_the_package(imports, saved):
    done = run(
        f"{imports}\nprint(keras.saving.load_model({str(saved)!r}).count_params())"
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 0


def test_the_table_lists_every_class_that_the_package_registers():
    listed = {}
    for module, names in vit_scaling._KERAS_CLASSES.items():
        imported = importlib.import_module(f"vit_scaling.{module}")
        listed |= {f"vit_scaling>{name}": getattr(imported, name) for name in names}
    rules = {f"vit_scaling>{rule.__name__}": rule for rule in RULE_CLASSES}
    registered = {
        name: value
        for name, value in keras.saving.get_custom_objects().items()
        if name.startswith("vit_scaling>")
    }
    assert registered == {**listed, **rules}
