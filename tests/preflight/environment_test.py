"""The other environment: what is given is looked at, what is wrong is said."""
# SPDX-License-Identifier: Apache-2.0

import ast
import sys
from pathlib import Path

import pytest

from vit_scaling.preflight import environment

ROOT = Path(__file__).resolve().parents[2]


def test_the_extra_of_setup_py_is_what_is_installed():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    extras = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS"
    )
    stated = {
        key.value: value for key, value in zip(extras.keys, extras.values, strict=True)
    }["preflight"]
    assert tuple(ast.literal_eval(stated)) == environment.REQUIREMENTS


def test_a_python_without_the_compiler_is_refused_with_what_to_install():
    with pytest.raises(RuntimeError, match=r"lacks the TPU compiler.*jax\[tpu\]=="):
        environment.tpu_python(sys.executable)


def test_a_path_that_is_not_there_is_named(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="`tpu_python` must be"):
        environment.tpu_python(str(tmp_path / "none"))
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is not there"):
        environment.tpu_python()


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
