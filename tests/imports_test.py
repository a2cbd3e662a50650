"""Imports in fresh interpreters: what they load, and which backends they reject."""
# SPDX-License-Identifier: Apache-2.0

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ["orbit", "tf_keras", "official", "tensorflow_datasets", "gin"]
ABOVE_TENSORFLOW = ["modeling.vit", "modeling.heads", "modeling.layers", "applications"]

BLOCK_TENSORFLOW = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tf_keras"}:
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> subprocess.CompletedProcess:
    """Run code in a new interpreter, with the checkout on its path."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def loaded(statement: str, names: list[str]) -> list[str]:
    """Return which of the named packages a statement has imported."""
    done = run(
        f"import sys\n{statement}\nprint([n for n in {names} if n in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


def test_importing_the_package_imports_no_tensorflow():
    assert not loaded("import vit_scaling", ["tensorflow", "keras", "numpy", *HEAVY])


def test_importing_models_and_applications_imports_nothing_heavy():
    statement = "\n".join(f"import vit_scaling.{name}" for name in ABOVE_TENSORFLOW)
    assert not loaded(statement, HEAVY)


def test_importing_the_pure_modules_imports_no_tensorflow():
    statement = (
        "import vit_scaling.modeling.shapes, vit_scaling.optimization.state_size"
    )
    assert not loaded(statement, ["tensorflow", "keras", *HEAVY])


def test_scaling_runs_where_tensorflow_is_not_installed():
    code = f"""{BLOCK_TENSORFLOW}
import importlib, pkgutil
from vit_scaling import scaling
for module in pkgutil.walk_packages(scaling.__path__, "vit_scaling.scaling."):
    importlib.import_module(module.name)
from vit_scaling.modeling.shapes import shape_named
print(shape_named("G/14").tokens(224))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["256"]


@pytest.mark.parametrize("module", ["modeling.layers", "optimization.optimizer"])
def test_another_keras_backend_raises_with_a_remedy(module):
    # No other backend's package is installed here, so Keras is made to name one.
    pretend = "import keras\nkeras.backend.backend = lambda: 'jax'"
    done = run(f"{pretend}\nimport vit_scaling.{module}")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: vit_scaling needs Keras on the TensorFlow")
    assert "'jax'" in last and "KERAS_BACKEND=tensorflow" in last


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is for x86")
@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_the_environment_says_otherwise(monkeypatch, given, used):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    done = run("import vit_scaling, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])")
    assert done.stdout.strip() == used, done.stderr
