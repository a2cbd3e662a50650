"""Contents of the built wheel: modules, gin files, data, commands, requirements."""
# SPDX-License-Identifier: Apache-2.0

import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PACKAGE_OF_MODULE = {  # Modules whose package has another name.
    "absl": "absl-py",
    "annotated_types": "annotated-types",
    "gin": "gin-config",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "official": "tf-models-official",
    "orbit": "tf-models-official",
    "tensorflow_datasets": "tensorflow-datasets",
    "apache_beam": "apache-beam",
    "tensorflow_serving": "tensorflow-serving-api",
    "grpc": "grpcio",
    "google": "protobuf",
    "google_crc32c": "google-crc32c",
    "jaxlib": "jax",
    "ml_dtypes": "ml-dtypes",
}
# TensorFlow and Keras themselves require these.
BROUGHT_ALONG = {"protobuf", "setuptools", "h5py", "wrapt"}
COMPARED_WITH = {  # Optional peers that benchmarks import.
    "torch",
    "imagededup",
    "imagehash",
    "optax",
    "ml_collections",
    "timm",
    "torchvision",
    "onnxruntime",
    "onnx",
    "tf2onnx",
    "ai_edge_litert",
    "openvino",
    "jax",
    "libtpu",
}


REPOSITORY = "https://github.com/OWNER/NAME"


def build(source: Path, kind: str, target: Path, **environment: str) -> Path:
    """The distribution that `setup.py kind` builds."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", kind, "--dist-dir", str(target)],
        cwd=source,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
    )
    return max(target.iterdir(), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the tracked files: setuptools leaves a build folder behind."""
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    return source


@pytest.fixture(scope="module")
def wheel_file(source, tmp_path_factory) -> Path:
    return build(source, "bdist_wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(wheel_file) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel_file)


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    """The source distribution, built with the repository's address."""
    folder = tmp_path_factory.mktemp("sdist")
    return build(source, "sdist", folder, VIT_SCALING_REPOSITORY=REPOSITORY)


def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_contains_every_module_and_no_other_folder(wheel):
    names = set(wheel.namelist())
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "vit_scaling").rglob("*.py")
    }
    assert modules <= names
    assert {n.split("/")[0].split("-")[0] for n in names} == {"vit_scaling"}


def test_wheel_contains_every_gin_file_and_no_result_of_a_study(wheel):
    inside = {n for n in wheel.namelist() if n.startswith("vit_scaling/gin_data/")}
    outside = {
        f"vit_scaling/gin_data/{path.relative_to(ROOT / 'gin')}"
        for path in (ROOT / "gin").rglob("*.gin")
    }
    assert inside == outside


def test_wheel_contains_the_data_files_and_the_type_marker(wheel):
    data = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "vit_scaling").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert "vit_scaling/py.typed" in data
    assert data <= set(wheel.namelist())


def test_the_wheel_installs_one_command(wheel):
    name = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    parser = ConfigParser()
    parser.read_string(wheel.read(name).decode())
    entries = dict(parser["console_scripts"])
    assert entries == {"vit-scaling": "vit_scaling.commands.main:main"}


def test_metadata_names_the_pythons_and_the_extras(wheel):
    data = metadata(wheel)
    assert sorted(data["Requires-Python"].split(",")) == ["<3.14", ">=3.10"]
    versions = {v for v in data.get_all("Classifier") if re.search(r"3\.\d+$", v)}
    assert versions == {
        f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)
    }
    extras = set(data.get_all("Provides-Extra"))
    assert extras == {
        "cuda", "hub", "plots", "beam", "preflight", "serving", "onnx", "litert", "all",
        "test",
    }  # fmt: skip
    assert data["License-Expression"] == "Apache-2.0"


def requirements(wheel: zipfile.ZipFile, extra: str) -> set[str]:
    return {
        line.partition(";")[0].strip()
        for line in metadata(wheel).get_all("Requires-Dist")
        if f'extra == "{extra}"' in line
    }


def test_all_is_every_extra_that_shares_an_environment(wheel):
    one_by_one = {"hub", "plots", "beam", "serving", "onnx", "litert"}
    union = set().union(*(requirements(wheel, name) for name in one_by_one))
    assert requirements(wheel, "all") == union


def test_cuda_is_of_the_tensorflow_that_is_tested(wheel):
    version = importlib.metadata.version("tensorflow").rpartition(".")[0]
    assert requirements(wheel, "cuda") == {f"tensorflow[and-cuda]=={version}.*"}


def test_twine_accepts_wheel_and_sdist(wheel_file, sdist):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", wheel_file, sdist],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_links_of_the_index_page_lead_to_files_of_the_repository(wheel, sdist):
    """Without the repository's address only absolute links and anchors are left."""
    assert all(
        re.match("https?:|#", link) for link in links(metadata(wheel).as_string())
    )
    with tarfile.open(sdist) as archive:
        name = next(n for n in archive.getnames() if n.endswith("/PKG-INFO"))
        text = archive.extractfile(name).read().decode()
    data = Parser().parsestr(text)
    assert f"Source, {REPOSITORY}" in data.get_all("Project-URL")
    files = [re.split("/(?:blob|raw)/HEAD/", link) for link in links(text)]
    paths = [parts[1] for parts in files if len(parts) == 2]
    readme = links((ROOT / "README.md").read_text(encoding="utf-8"))
    relative = [link for link in readme if not re.match("https?:|#", link)]
    assert len(paths) == len(relative) > 0
    missing = [path for path in paths if not (ROOT / path.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "sdist", filter="data")
    [source] = (tmp_path / "sdist").iterdir()
    again = zipfile.ZipFile(build(source, "bdist_wheel", tmp_path / "wheel"))
    assert set(again.namelist()) == set(wheel.namelist())


def third_party_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    # Workers in an environment without the package import files of their own folder.
    neighbours = {neighbour.stem for neighbour in path.parent.glob("*.py")}
    return found - set(sys.stdlib_module_names) - {"vit_scaling", "tests"} - neighbours


def test_every_import_is_required_or_an_extra(wheel):
    stated = {
        re.split(r"[<>=!\[; ]", line, maxsplit=1)[0]
        for line in metadata(wheel).get_all("Requires-Dist")
    }
    imported = {
        module: path.name
        for path in sorted((ROOT / "vit_scaling").rglob("*.py"))
        for module in third_party_imports(path)
    }
    missing = {
        module: file
        for module, file in imported.items()
        if PACKAGE_OF_MODULE.get(module, module) not in stated | BROUGHT_ALONG
        and module not in COMPARED_WITH
    }
    assert not missing, f"Not in setup.py: {missing}"


def test_keras_of_python_3_10_is_the_last_that_supports_it():
    spec = importlib.util.spec_from_file_location("requirements", ROOT / "setup.py")
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert "keras>=3.12,<3.13; python_version < '3.11'" in source
