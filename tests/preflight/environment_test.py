"""The compiler's environment: given or created, with messages about problems."""
# SPDX-License-Identifier: Apache-2.0

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vit_scaling.preflight import environment
from vit_scaling.preflight.environment import TPU

ROOT = Path(__file__).resolve().parents[2]


def test_the_requirements_are_the_extra_of_setup_py():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    extras = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS"
    )
    stated = {
        key.value: value for key, value in zip(extras.keys, extras.values, strict=True)
    }["preflight"]
    assert tuple(ast.literal_eval(stated)) == TPU.requirements


def test_a_python_without_the_compiler_is_rejected_with_instructions():
    with pytest.raises(RuntimeError, match=r"lacks the TPU compiler.*jax\[tpu\]=="):
        environment.find_python(TPU, sys.executable)


def test_packages_on_pythonpath_do_not_reach_the_compiler(monkeypatch, tmp_path):
    """A jax on PYTHONPATH is not the compiler's and may be another version."""
    for name in ("jax", "jaxlib", "libtpu"):
        information = tmp_path / f"{name}-9.dist-info"
        information.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n"
        (information / "METADATA").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="lacks the TPU compiler"):
        environment.read_versions(TPU, Path(sys.executable))


def test_a_missing_path_is_named(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="`tpu_python` must be"):
        environment.find_python(TPU, str(tmp_path / "none"))
    monkeypatch.setenv(TPU.variable, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        environment.find_python(TPU)


def test_the_cache_follows_the_xdg_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_root() == tmp_path / "vit_scaling" / "preflight"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.cache_root().parts[-3:] == (
        ".cache",
        "vit_scaling",
        "preflight",
    )


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The environment's parent; a fake one is complete if its Python has content."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(TPU.variable, raising=False)
    monkeypatch.setattr(
        environment,
        "_is_complete",
        lambda toolchain, python: python.is_file() and python.read_text(),
    )
    return environment.cache_root()


def fill(folder, text):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(text)


def test_an_environment_that_another_process_creates_meanwhile_is_kept(
    monkeypatch, cache
):
    def slowly(toolchain, folder):
        assert not (cache / "environment").exists()  # Never visible while incomplete.
        fill(folder, "second")
        fill(cache / "environment", "first")

    monkeypatch.setattr(environment, "_install", slowly)
    assert environment.find_python(TPU).read_text() == "first"
    assert [path.name for path in cache.iterdir()] == ["environment"]


def test_an_unfinished_environment_is_replaced(monkeypatch, cache):
    fill(cache / "environment", "")
    monkeypatch.setattr(
        environment, "_install", lambda toolchain, folder: fill(folder, "whole")
    )
    assert environment.find_python(TPU).read_text() == "whole"
    assert [path.name for path in cache.iterdir()] == ["environment"]


def test_the_reason_why_an_environment_cannot_be_created_is_given(monkeypatch, cache):
    def failing(folder, with_pip):
        fill(folder, "half")
        output = b"some lines\nNo module named ensurepip\n"
        raise subprocess.CalledProcessError(1, ["python"], output=output)

    monkeypatch.setattr(environment.venv, "create", failing)
    with pytest.raises(
        RuntimeError,
        match=r"cannot be created: No module named ensurepip\. Install jax",
    ):
        environment.find_python(TPU)
    assert not list(cache.iterdir())
