"""Install vit_scaling: its packages, its gin files and the command vit-scaling.

VIT_SCALING_REPOSITORY=https://github.com/OWNER/NAME in the environment of a build gives
the index page its links to files, and the project's URLs.
"""
# SPDX-License-Identifier: Apache-2.0

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# TensorFlow 2.20 is what this resolves to: Model Garden 2.20.0 asks for it. With 2.19
# pip takes Model Garden 2.19.x. For 2.21 install tf-models-official with --no-deps.
REQUIRES = [
    "tensorflow>=2.19,<2.22",
    "tf-models-official>=2.19,<2.21",
    "keras>=3.12,<3.13; python_version < '3.11'",  # The last one for Python 3.10.
    "keras>=3.12,<3.16; python_version >= '3.11'",
    "tensorflow-datasets>=4.9.9",
    "absl-py>=1.4",
    "annotated-types>=0.6",
    "etils[epath]>=1.9",
    "gin-config>=0.5,<0.6",
    "google-crc32c>=1.6",
    "jinja2>=3.1",
    "ml-dtypes>=0.5",
    "importlib_resources>=6",  # tensorflow-datasets imports it, and leaves it out.
    "numpy>=2.0",
    "pandas>=2.2",  # Tables of runs. Model Garden requires it too.
    "pillow>=10",
    "pyarrow>=15",  # Parquet. tensorflow-datasets requires it too.
    "pydantic>=2.7",
    "safetensors>=0.4",
    "scikit-learn>=1.5",  # Probes of features; the embedded digits.
    "scipy>=1.13",
    "tensorboard>=2.19,<2.22",  # TensorFlow 2.21 no longer brings it.
    "threadpoolctl>=3.1",
    "tqdm>=4.66",
    "typing_extensions>=4.6",  # `Unpack`, for Python 3.10.
]
HUB = ["huggingface_hub>=0.30,<3"]  # `weights="hf://OWNER/NAME"`.
PLOTS = ["matplotlib>=3.9,<4"]
SERVING = ["tensorflow-serving-api>=2.19,<2.22", "grpcio>=1.68"]
ONNX = ["tf2onnx>=1.16", "onnx>=1.16", "onnxruntime>=1.18"]
LITERT = ["ai-edge-litert>=1.2"]
BEAM = ["apache-beam>=2.77,<3"]
EXTRAS = {
    "cuda": ["tensorflow[and-cuda]==2.20.*"],  # Of the version that is tested.
    "hub": HUB,
    "plots": PLOTS,
    "beam": BEAM,
    # Into a virtual environment of their own: jax does not mix with TensorFlow's.
    "preflight": ["jax[tpu]==0.10.2", "libtpu==0.0.42.1"],
    "serving": SERVING,
    "onnx": ONNX,
    "litert": LITERT,
    # Everything that runs on any machine and in one environment.
    "all": [*HUB, *PLOTS, *BEAM, *SERVING, *ONNX, *LITERT],
    "test": [
        *HUB,
        *PLOTS,
        *SERVING,
        *ONNX,
        *LITERT,
        "pytest==9.2.0",
        "pytest-xdist==3.8.0",
        "pyyaml>=6",  # Reads the compose file of a serving kit.
        "ruff==0.17.6",
        "mypy==2.4.1",
        "setuptools==80.10.2",  # Builds the wheel that a test looks into.
        "twine>=6.1",  # Checks the built files.
        "scikit-image>=0.25",  # Its photographs are test images.
    ],
}


def version() -> str:
    """Return the version that `vit_scaling/__init__.py` states."""
    text = (ROOT / "vit_scaling" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("vit_scaling/__init__.py must state __version__; found none.")
    return found[1]


def index_page(text: str, repository: str | None) -> str:
    """Return README.md for a package index, where links to files have no meaning.

    Args:
        text: Content of README.md.
        repository: Address of the repository, to which such links lead; None replaces
            them by their text and removes images.
    """

    def replace(match: re.Match[str]) -> str:
        image, label, path = match.groups()
        if repository is None:
            return "" if image else label
        return (
            f"{image}[{label}]({repository}/{'raw' if image else 'blob'}/HEAD/{path})"
        )

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)", replace, text)


REPOSITORY = os.environ.get("VIT_SCALING_REPOSITORY")
PROJECT_URLS = {"Paper": "https://arxiv.org/abs/2106.04560"}
if REPOSITORY:
    PROJECT_URLS |= {
        "Source": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/HEAD/vit_scaling/CHANGELOG.md",
    }

# Guides, tables, templates and figures.
DATA_SUFFIXES = ("json", "md", "csv", "html", "css", "png", "svg", "dot", "ipynb")

setup(
    name="vit_scaling",
    version=version(),
    description="Scaling Vision Transformers (Zhai et al. 2022) in TensorFlow",
    long_description=index_page(
        (ROOT / "README.md").read_text(encoding="utf-8"), REPOSITORY
    ),
    long_description_content_type="text/markdown",
    project_urls=PROJECT_URLS,
    keywords=["vision transformer", "scaling laws", "keras", "tensorflow", "tpu"],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",  # TensorFlow 2.20 has no build for 3.14.
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    # gin/ is data, never a package: an __init__.py there would shadow gin-config.
    packages=[*find_packages(include=["vit_scaling*"]), "vit_scaling.gin_data"],
    package_dir={"vit_scaling.gin_data": "gin"},
    package_data={
        "vit_scaling": [
            "py.typed",
            "*.md",
            *(f"**/*.{suffix}" for suffix in DATA_SUFFIXES),
        ],
        "vit_scaling.gin_data": ["*.gin", "**/*.gin"],
    },
    entry_points={"console_scripts": ["vit-scaling=vit_scaling.commands.main:main"]},
    zip_safe=False,
)
