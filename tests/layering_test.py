"""Imports run one way, and third-party packages are imported only where allowed."""
# SPDX-License-Identifier: Apache-2.0

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vit_scaling"

LAYERS = [  # A package imports only from lines below its own.
    {"commands"},
    {"train"},
    {"configurables", "preflight"},
    {"runs"},
    {"assembly", "run_check", "trained_run"},
    {"experiment", "applications", "export", "scaling.studies"},
    {"data.deduplication", "scaling.planning"},
    {"data.writing", "recipes", "scaling.laws"},
    {"modeling", "optimization", "data", "training", "evaluation", "gin_files"},
    {"array_files", "run_record"},
    {"backend", "checks", "image_preprocessing", "io_files", "library_messages"},
    {"adapters", "argument_types", "class_names", "image_headers"},
    {"batch_distribution", "naming", "unquoted_texts"},
]
NESTED = {name for names in LAYERS for name in names if "." in name}
LEVEL = {name: -row for row, names in enumerate(LAYERS) for name in names}

ALLOWED_IMPORTERS = {  # Packages that may import a module, even inside a function.
    "gin": {"configurables", "gin_files"},
    "orbit": {"training", "assembly"},
    "official": {"training"},
    "tf_keras": set(),
}

WITHOUT_TENSORFLOW = [  # These run where TensorFlow and Keras are not installed.
    *sorted((PACKAGE / "scaling").rglob("*.py")),
    *(
        PACKAGE / "modeling" / f"{name}.py"
        for name in (
            "head_specs",
            "layer_variables",
            "rematerialization",
            "shapes",
            "variables",
        )
    ),
    *(
        PACKAGE / "optimization" / f"{name}.py"
        for name in ("path_rules", "state_size", "update_rule", "update_rules")
    ),
]


def imported_modules(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, `vit_scaling.PACKAGE` at least."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and is_package(node.module or ""):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def is_package(module: str) -> bool:
    """Whether `from module import name` may name a module of ours."""
    folder = ROOT / module.replace(".", "/")
    return module.split(".")[0] == "vit_scaling" and folder.is_dir()


def package_of(path: Path) -> str:
    return innermost_package(path.relative_to(PACKAGE).with_suffix("").parts)


def innermost_package(parts: Sequence[str]) -> str:
    """Return "data.writing" for ("data", "writing", "sources"), "export" for others."""
    nested = ".".join(parts[:2])
    return nested if nested in NESTED else parts[0]


def imported_packages(path: Path) -> set[str]:
    """Return the packages of ours that a file imports, its own left out."""
    modules = [name.split(".") for name in imported_modules(path)]
    ours = {
        innermost_package(parts[1:])
        for parts in modules
        if parts[0] == "vit_scaling" and parts[1:]
    }
    return {name for name in ours if not name.startswith("__")} - {package_of(path)}


def sources() -> list[Path]:
    """Return every module with code, without the empty `__init__.py` files."""
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if package_of(path) not in ("__init__", "scaling")
    ]


def test_every_package_has_a_layer():
    unknown = {package_of(path) for path in sources()} - LEVEL.keys()
    assert not unknown, f"Add to LAYERS: {unknown}"


def test_imports_run_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} imports {target}"
        for path in sources()
        for target in sorted(imported_packages(path))
        if LEVEL[package_of(path)] <= LEVEL.get(target, 1)
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("module", ALLOWED_IMPORTERS)
def test_third_party_module_is_imported_only_where_allowed(module):
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if package_of(path) not in ALLOWED_IMPORTERS[module]
        and any(name.split(".")[0] == module for name in imported_modules(path))
    ]
    assert not wrong, f"{wrong} must not import {module}"


def test_modules_without_tensorflow_do_not_import_it():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in WITHOUT_TENSORFLOW
        for name in imported_modules(path)
        if name.split(".")[0] in {"tensorflow", "keras"}
    ]
    assert not wrong, wrong


def build_targets() -> dict[str, set[str]]:
    """Return each library and binary of BUILD with its deps; BUILD reads as Python."""
    targets = {}
    for node in ast.walk(ast.parse((ROOT / "BUILD").read_text(encoding="utf-8"))):
        rule = isinstance(node, ast.Call) and getattr(node.func, "id", "")
        if rule in {"py_library", "py_binary"}:
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            deps = ast.literal_eval(keywords.get("deps", ast.List([])))
            targets[ast.literal_eval(keywords["name"])] = {d.lstrip(":") for d in deps}
    return targets


def test_build_repeats_the_layering():
    targets = build_targets()
    wanted: dict[str, set[str]] = {}
    for path in sources():
        wanted.setdefault(package_of(path), {"vit_scaling"}).update(
            imported_packages(path)
        )
    wrong = [
        f"BUILD: {name} has deps {targets.get(name)} and imports {sorted(deps)}"
        for name, deps in wanted.items()
        if targets.get(name) != deps
    ]
    assert not wrong, "\n".join(wrong)


def test_every_form_of_import_is_found(tmp_path):
    file = tmp_path / "some.py"
    file.write_text(
        "import vit_scaling.data.pipeline as p, gin\n"
        "from vit_scaling import modeling\n"
        "def f():\n    from vit_scaling.training import losses\n"
    )
    found = set(imported_modules(file))
    assert {"vit_scaling.data.pipeline", "gin", "vit_scaling.modeling"} <= found
    assert "vit_scaling.training.losses" in found
    assert all(re.fullmatch(r"[\w.]+", name) for name in found)
