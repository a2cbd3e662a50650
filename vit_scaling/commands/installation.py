"""Find installed versions and devices, and known conflicts between them."""
# SPDX-License-Identifier: Apache-2.0

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

# Packages that training imports. Orbit and Model Garden's distribute_utils import
# tf_keras, which `--no-deps` leaves out.
REQUIRED = (
    "keras",
    "gin-config",
    "google-crc32c",
    "jinja2",
    "absl-py",
    "annotated-types",
    "etils",
    "ml-dtypes",
    "numpy",
    "pillow",
    "pydantic",
    "scipy",
    "tf_keras",
)
PACKAGES = (
    "vit_scaling",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-tpu",
    "tf-models-official",
    *REQUIRED,
    "tensorboard",
    "tensorflow-datasets",
    "protobuf",
    "jax",
    "libtpu",
    "apache-beam",
)
TENSORFLOW_BUILDS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu")
TESTED_TENSORFLOW = ("2.19", "2.20", "2.21")
# Model Garden's version by TensorFlow's. The Orbit of 2.20 imports names that do not
# exist in TensorFlow 2.19; 2.20.0 also runs under 2.21.
COMPATIBLE_GARDENS: dict[tuple[int, ...], tuple[int, ...]] = {
    (2, 19): (2, 19),
    (2, 20): (2, 20),
    (2, 21): (2, 20),
}
KINDS = ("CPU", "GPU", "TPU")
CPU_FILE = pathlib.Path("/proc/cpuinfo")

Versions = Mapping[str, str | None]
Conflict = dict[str, str]  # {"problem": …, "fix": …}


def installed_versions() -> dict[str, str | None]:
    """Return the version of each relevant package; None if it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def devices() -> dict[str, list[str]]:
    """Return the names of TensorFlow's devices by kind, or {"error": [why]}."""
    try:
        import tensorflow as tf

        found = {kind: tf.config.list_physical_devices(kind) for kind in KINDS}
    except Exception as error:  # Any failure to start is the result.
        return {"error": [f"TensorFlow does not start: {error}"]}
    return {kind: [one.name for one in found[kind]] or ["none"] for kind in KINDS}


def describe_machine() -> str:
    """Return cores, processor and accelerators: "two cores (AMD EPYC), …"."""
    count = os.cpu_count() or 1
    cores = {1: "one core", 2: "two cores"}.get(count, f"{count} cores")
    found = Counter(_accelerators())
    names = [f"{n} x {name}" if n > 1 else name for name, n in found.items()]
    return f"{cores} ({_processor()}), {', '.join(names) or 'no accelerator'}"


def _processor() -> str:
    text = CPU_FILE.read_text() if CPU_FILE.exists() else ""  # Linux
    model = re.search(r"^model name\s*: *(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def _accelerators() -> list[str]:
    """Return the names of the GPUs and TPUs that TensorFlow sees."""
    try:
        import tensorflow as tf
    except ImportError:
        return []
    config = tf.config
    gpus = config.list_physical_devices("GPU")
    details = [config.experimental.get_device_details(gpu) for gpu in gpus]
    names = [str(one.get("device_name", "GPU")) for one in details]
    return names + ["TPU"] * len(config.list_physical_devices("TPU"))


def find_conflicts(
    versions: Versions, python: Sequence[int], environment: Mapping[str, str]
) -> list[Conflict]:
    """Return the known conflicts of an installation, each with its fix.

    Args:
        versions: From `installed_versions`.
        python: Such as (3, 11).
        environment: Such as `os.environ`.
    """
    pairs = [
        *_python_conflicts(tuple(python[:2]), versions),
        *_tensorflow_conflicts(versions),
        *_model_garden_conflicts(versions),
        *_other_conflicts(versions, environment),
    ]
    return [{"problem": problem, "fix": fix} for problem, fix in pairs]


def _python_conflicts(
    python: tuple[int, ...], versions: Versions
) -> Iterator[tuple[str, str]]:
    text = ".".join(map(str, python))
    if python < (3, 10):
        yield f"Python {text} is too old.", "Use Python 3.10 to 3.13."
    elif python < (3, 11) and _minor(versions, "keras") >= (3, 13):
        yield (
            f"Keras {versions['keras']} needs Python 3.11; this is {text}.",
            "pip install 'keras>=3.12,<3.13', or use Python 3.11.",
        )


def _tensorflow_conflicts(versions: Versions) -> Iterator[tuple[str, str]]:
    builds = [name for name in TENSORFLOW_BUILDS if versions.get(name)]
    missing = [name for name in REQUIRED if not versions.get(name)]
    if missing:
        yield f"{', '.join(missing)} not installed.", _install(missing, versions)
    if not builds:
        yield (
            "TensorFlow is not installed.",
            "pip install tensorflow (on a TPU VM: tensorflow-tpu).",
        )
        return
    if len(builds) > 1:
        keep = "tensorflow-tpu" if "tensorflow-tpu" in builds else "tensorflow"
        yield (
            f"{' and '.join(builds)} overwrite each other's files.",
            f"pip uninstall -y {' '.join(builds)}; pip install {keep}; then pip "
            f"install --no-deps tf-models-official {_tf_keras(versions)}: they require "
            "`tensorflow`.",
        )
    version = versions[builds[0]] or ""
    if not version.startswith(TESTED_TENSORFLOW):
        yield (
            f"TensorFlow {version} has not been tested; "
            f"{', '.join(TESTED_TENSORFLOW)} have.",
            "pip install 'tensorflow==2.20.*'",
        )
    if _minor(versions, builds[0]) >= (2, 21) and not versions.get("tensorboard"):
        yield (
            "TensorFlow 2.21 no longer installs tensorboard, which the logs need.",
            "pip install tensorboard",
        )


def _model_garden_conflicts(versions: Versions) -> Iterator[tuple[str, str]]:
    garden = _minor(versions, "tf-models-official")
    if not garden:
        if importlib.util.find_spec("orbit") is None:
            yield (
                "Orbit, the training loop, is missing: it comes with "
                "tf-models-official.",
                "pip install --no-deps tf-models-official==2.20.0 "
                f"{_tf_keras(versions)}",
            )
        return
    build = next((name for name in TENSORFLOW_BUILDS if versions.get(name)), "")
    tensorflow = _minor(versions, build)
    expected = COMPATIBLE_GARDENS.get(tensorflow, garden)
    if garden != expected:
        deps = " --no-deps" if tensorflow != expected else ""
        yield (
            f"tf-models-official {versions['tf-models-official']} is not compatible "
            f"with TensorFlow {versions[build]}.",
            f"pip install{deps} 'tf-models-official=={expected[0]}.{expected[1]}.*'",
        )


def _other_conflicts(
    versions: Versions, environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    if () < _minor(versions, "keras") < (3, 12):
        yield (
            f"Keras {versions['keras']} is older than 3.12.",
            "pip install 'keras>=3.12,<3.16'",
        )
    if versions.get("libtpu") and not versions.get("tensorflow-tpu"):
        yield (
            "libtpu (from jax[tpu]) conflicts with TensorFlow.",
            "Install the extra `preflight` in a separate virtual environment.",
        )
    backend = environment.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        yield (
            f"KERAS_BACKEND={backend}: this package needs Keras on TensorFlow.",
            "export KERAS_BACKEND=tensorflow",
        )
    if environment.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        yield (
            "TF_USE_LEGACY_KERAS makes other libraries use Keras 2.",
            "unset TF_USE_LEGACY_KERAS",
        )


def _install(missing: Sequence[str], versions: Versions) -> str:
    """Return the commands that install packages.

    tf_keras gets a command without dependencies: it requires the package `tensorflow`,
    which must not be installed over another build.
    """
    others = [name for name in missing if name != "tf_keras"]
    commands = [f"pip install {' '.join(others)}"] if others else []
    if "tf_keras" in missing:
        commands.append(f"pip install --no-deps {_tf_keras(versions)}")
    return "; ".join(commands)


def _tf_keras(versions: Versions) -> str:
    """Return pip's requirement for tf_keras of TensorFlow's own version."""
    builds = [name for name in TENSORFLOW_BUILDS if versions.get(name)]
    minor = _minor(versions, builds[-1]) if builds else ()
    return f"'tf_keras=={minor[0]}.{minor[1]}.*'" if minor else "tf_keras"


def _minor(versions: Versions, name: str) -> tuple[int, ...]:
    """Return (major, minor) of an installed package, or ()."""
    numbers = re.match(r"(\d+)\.(\d+)", versions.get(name) or "")
    return tuple(map(int, numbers.groups())) if numbers else ()
