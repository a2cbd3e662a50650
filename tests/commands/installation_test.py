"""Known conflicts of installations are found and come with a fix."""
# SPDX-License-Identifier: Apache-2.0

import ast
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

from vit_scaling.commands import installation

GOOD = {
    **dict.fromkeys(installation.PACKAGES),
    "tensorflow": "2.20.0",
    "tf-models-official": "2.20.0",
    "keras": "3.15.1",
    "gin-config": "0.5.0",
    "google-crc32c": "1.7",
    "jinja2": "3.1.6",
    "absl-py": "1.4.0",
    "annotated-types": "0.7.0",
    "etils": "1.13.0",
    "ml-dtypes": "0.5.4",
    "numpy": "2.4.6",
    "pillow": "12.0.0",
    "pydantic": "2.14.4",
    "scipy": "1.16.3",
    "tf_keras": "2.20.1",
    "tensorboard": "2.20.0",
}


def conflicts(changes=None, python=(3, 11), environment=None):
    versions = {**GOOD, **(changes or {})}
    return installation.find_conflicts(versions, python, environment or {})


@pytest.mark.parametrize(
    ("changes", "python"),
    [
        ({}, (3, 11)),
        ({}, (3, 13)),
        ({"keras": "3.12.0"}, (3, 10)),
        ({"tensorflow": "2.19.1", "tf-models-official": "2.19.1"}, (3, 11)),
        ({"tensorflow": "2.21.0"}, (3, 11)),
        ({"tensorflow": None, "tensorflow-cpu": "2.20.0"}, (3, 11)),
        ({"tensorflow": None, "tensorflow-tpu": "2.20.0", "libtpu": "0.0.2"}, (3, 11)),
        ({"apache-beam": "2.77.0"}, (3, 11)),
    ],
)
def test_tested_combinations_have_no_conflict(changes, python):
    assert conflicts(changes, python) == []


@pytest.mark.parametrize(
    ("changes", "python", "problem", "fix"),
    [
        ({}, (3, 9), "Python 3.9 is too old", "3.10 to 3.13"),
        ({}, (3, 10), "Keras 3.15.1 needs Python 3.11", "<3.13"),
        ({"keras": "3.8.0"}, (3, 11), "older than 3.12", "keras>=3.12"),
        ({"keras": None}, (3, 11), "keras not installed", "pip install keras"),
        (
            {"tf_keras": None},
            (3, 11),
            "tf_keras not installed",
            "pip install --no-deps 'tf_keras==2.20.*'",
        ),
        (
            {"tensorflow": None, "tensorflow-tpu": "2.21.0", "tf_keras": None},
            (3, 11),
            "tf_keras not installed",
            "pip install --no-deps 'tf_keras==2.21.*'",
        ),
        (
            {"tensorflow": None},
            (3, 11),
            "TensorFlow is not installed",
            "tensorflow-tpu",
        ),
        (
            {"tensorflow-tpu": "2.20.0"},
            (3, 11),
            "tensorflow and tensorflow-tpu overwrite",
            "--no-deps tf-models-official 'tf_keras==2.20.*'",
        ),
        ({"tensorflow": "2.18.0"}, (3, 11), "2.18.0 has not been tested", "2.20"),
        (
            {"tensorflow": "2.21.0", "tensorboard": None},
            (3, 11),
            "no longer installs tensorboard",
            "pip install tensorboard",
        ),
        (
            {"tensorflow": "2.19.1"},
            (3, 11),
            "tf-models-official 2.20.0 is not compatible with TensorFlow 2.19.1",
            "pip install 'tf-models-official==2.19.*'",
        ),
        (
            {"tensorflow": "2.21.0", "tf-models-official": "2.19.1"},
            (3, 11),
            "is not compatible with TensorFlow 2.21.0",
            "pip install --no-deps 'tf-models-official==2.20.*'",
        ),
        (
            {"libtpu": "0.0.42.1"},
            (3, 11),
            "conflicts with TensorFlow",
            "separate virtual",
        ),
    ],
)
def test_every_conflict_comes_with_a_fix(changes, python, problem, fix):
    (found,) = conflicts(changes, python)
    assert problem in found["problem"] and fix in found["fix"]


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"KERAS_BACKEND": "jax"}, "KERAS_BACKEND=jax"),
        ({"TF_USE_LEGACY_KERAS": "1"}, "TF_USE_LEGACY_KERAS"),
    ],
)
def test_conflicting_environment_variables_are_reported(environment, problem):
    (found,) = conflicts(environment=environment)
    assert problem in found["problem"]
    assert not conflicts(environment={"KERAS_BACKEND": "tensorflow"})


def test_all_conflicts_are_reported():
    environment = {"KERAS_BACKEND": "jax"}
    found = conflicts({"keras": "3.8.0", "libtpu": "1"}, (3, 11), environment)
    assert len(found) == 3


def test_versions_and_devices_of_this_installation_are_right():
    import keras
    import tensorflow as tf

    versions = installation.installed_versions()
    assert versions["keras"] == keras.__version__
    assert tf.__version__ in [versions[name] for name in installation.TENSORFLOW_BUILDS]
    found = installation.devices()
    assert found["CPU"] == [d.name for d in tf.config.list_physical_devices("CPU")]


LISTED = """
import sys
import vit_scaling.configurables
print(*(m.__file__ for n, m in sys.modules.items() if n.startswith("vit_scaling.")))
"""


def test_every_package_that_training_imports_is_checked():
    """A missing package is reported, for example after `pip install --no-deps`."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED], capture_output=True, text=True, check=True
    )
    roots = set()
    for file in done.stdout.split():
        for node in ast.parse(pathlib.Path(file).read_text()).body:
            if isinstance(node, ast.ImportFrom):
                roots.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                roots.update(each.name.partition(".")[0] for each in node.names)
    roots -= {*sys.stdlib_module_names, "vit_scaling"}
    assert {"scipy", "tensorflow", "keras", "orbit"} <= roots
    known = {
        *installation.REQUIRED,
        *installation.TENSORFLOW_BUILDS,
        "tf-models-official",
    }
    known = {name.replace("_", "-") for name in known}
    distributions = importlib.metadata.packages_distributions()
    for root in roots:
        names = {name.replace("_", "-") for name in distributions[root]}
        assert known & names, root


def test_a_tensorflow_that_does_not_start_is_the_finding(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    (why,) = installation.devices()["error"]
    assert why.startswith("TensorFlow does not start")


def test_the_machine_is_described_by_cores_processor_and_accelerators(
    monkeypatch, tmp_path
):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: AMD EPYC\n\nmodel name\t: other\n")
    monkeypatch.setattr(installation, "CPU_FILE", file)
    monkeypatch.setattr(installation.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(installation, "_accelerators", lambda: [])
    text = "two cores (AMD EPYC), no accelerator"
    assert installation.describe_machine() == text
    monkeypatch.setattr(installation, "_accelerators", lambda: ["H100"] * 8)
    monkeypatch.setattr(installation.os, "cpu_count", lambda: 16)
    assert installation.describe_machine() == "16 cores (AMD EPYC), 8 x H100"
