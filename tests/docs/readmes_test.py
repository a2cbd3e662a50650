"""The README of each package lists its modules or folders; its links exist."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vit_scaling"
READMES = sorted(PACKAGE.rglob("README.md"))
MODULES = {path.name for path in PACKAGE.rglob("*.py")}
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_readme_lists_every_module(path):
    text = path.read_text(encoding="utf-8")
    for module in path.parent.rglob("*.py"):
        listed = f"{module.name}`" in text or f"`{module.parent.name}/`" in text
        assert listed or module.name == "__init__.py", f"{module} is not listed."
    for name in re.findall(r"`(?:[\w/.]+/)?(\w+\.py)`", text):
        assert name in MODULES, f"{name} does not exist."


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_links_of_a_readme_exist(path):
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
