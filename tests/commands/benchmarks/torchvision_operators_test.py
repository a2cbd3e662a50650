"""Operators are defined only where torchvision itself fails to import."""
# SPDX-License-Identifier: Apache-2.0

import sys
import types

import pytest

from vit_scaling.commands.benchmarks import torchvision_operators


class _Torch:
    """Stands for torch: `library.Library` records what is defined."""

    def __init__(self):
        self.defined = []
        self.library = self

    def Library(self, name, kind):
        assert (name, kind) == ("torchvision", "DEF")
        return self

    def define(self, signature):
        self.defined.append(signature)


def _broken_import(*_):
    raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize("broken", [False, True])
def test_operators_are_defined_if_torchvision_fails(broken, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    if broken:
        monkeypatch.delitem(sys.modules, "torchvision")
        finder = types.SimpleNamespace(
            find_spec=lambda name, *_: (
                _broken_import() if name == "torchvision" else None
            )
        )
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    torch = _Torch()
    torchvision_operators.define_missing_operators(torch)
    names = [signature.partition("(")[0] for signature in torch.defined]
    assert names == (["nms", "qnms"] if broken else [])
