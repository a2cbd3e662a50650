"""Find installed versions and devices, and known conflicts between them."""
# SPDX-License-Identifier: Apache-2.0

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence

# Packages that training imports. Orbit and Model Garden's distribute_utils import
# tf_keras, which `--no-deps` leaves out.
REQUIRED = (
    "keras",
    "gin-config",
    "absl-py",
    "etils",
    "ml-dtypes",
    "numpy",
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
    "google-crc32c",
)
TENSORFLOW_BUILDS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu")
TESTED_TENSORFLOW = ("2.19", "2.20", "2.21")

Versions = Mapping[str, str | None]
Conflict = dict[str, str]  # {"problem": …, "fix": …}


def installed_versions() -> dict[str, str | None]:
    """Return the version of each relevant package; None if it is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def devices() -> dict[str, list[str]]:
    """Return the names of TensorFlow's devices by kind, or {"error": [why]}."""
    try:
        import tensorflow as tf

        kinds = ("CPU", "GPU", "TPU")
        return {kind: _names(tf.config, kind) for kind in kinds}
    except Exception as error:  # Any failure to start is the result.
        return {"error": [f"TensorFlow does not start: {error}"]}


def _names(config: object, kind: str) -> list[str]:
    physical = config.list_physical_devices(kind)  # type: ignore[attr-defined]
    return [device.name for device in physical] or ["none"]


def find_conflicts(
    versions: Versions, python: Sequence[int], environment: Mapping[str, str]
) -> list[Conflict]:
    """Return the known conflicts of an installation, each with its fix.

    Args:
        versions: From `installed_versions`.
        python: Such as (3, 11).
        environment: Such as `os.environ`.
    """
    return [
        *_python_conflicts(python, versions),
        *_tensorflow_conflicts(versions),
        *_model_garden_conflicts(versions),
        *_other_conflicts(versions),
        *_environment_conflicts(environment),
    ]


def _python_conflicts(python: Sequence[int], versions: Versions) -> list[Conflict]:
    text = f"{python[0]}.{python[1]}"
    if tuple(python) < (3, 10):
        return [_conflict(f"Python {text} is too old.", "Use Python 3.10 to 3.13.")]
    if tuple(python) < (3, 11) and _minor(versions, "keras") >= (3, 13):
        return [
            _conflict(
                f"Keras {versions['keras']} needs Python 3.11; this is {text}.",
                "pip install 'keras>=3.12,<3.13', or use Python 3.11.",
            )
        ]
    return []


def _tensorflow_conflicts(versions: Versions) -> list[Conflict]:
    present = [name for name in TENSORFLOW_BUILDS if versions.get(name)]
    missing = [name for name in REQUIRED if not versions.get(name)]
    found = []
    if missing:
        fix = _install_commands(missing, versions)
        found.append(_conflict(f"{', '.join(missing)} not installed.", fix))
    if not present:
        fix = "pip install tensorflow (on a TPU VM: tensorflow-tpu)."
        return [*found, _conflict("TensorFlow is not installed.", fix)]
    if len(present) > 1:
        keep = "tensorflow-tpu" if "tensorflow-tpu" in present else "tensorflow"
        fix = (
            f"pip uninstall -y {' '.join(present)}; pip install {keep}; then pip "
            f"install --no-deps tf-models-official {_tf_keras_requirement(versions)}: "
            "they require `tensorflow`."
        )
        problem = f"{' and '.join(present)} overwrite each other's files."
        found.append(_conflict(problem, fix))
    version = _text(versions, present[0])
    if not version.startswith(TESTED_TENSORFLOW):
        tested = ", ".join(TESTED_TENSORFLOW)
        problem = f"TensorFlow {version} has not been tested; {tested} have."
        found.append(_conflict(problem, "pip install 'tensorflow==2.20.*'"))
    if _minor(versions, present[0]) >= (2, 21) and not versions.get("tensorboard"):
        problem = "TensorFlow 2.21 no longer installs tensorboard, which the logs need."
        found.append(_conflict(problem, "pip install tensorboard"))
    return found


def _tf_keras_requirement(versions: Versions) -> str:
    """Return pip's requirement for tf_keras of TensorFlow's own version."""
    present = [name for name in TENSORFLOW_BUILDS if versions.get(name)]
    minor = _minor(versions, present[-1]) if present else ()
    return f"'tf_keras=={minor[0]}.{minor[1]}.*'" if minor else "tf_keras"


def _install_commands(missing: Sequence[str], versions: Versions) -> str:
    """Return the commands that install packages.

    tf_keras gets a command without dependencies: it requires the package `tensorflow`,
    which must not be installed over another build.
    """
    commands = []
    others = [name for name in missing if name != "tf_keras"]
    if others:
        commands.append(f"pip install {' '.join(others)}")
    if "tf_keras" in missing:
        commands.append(f"pip install --no-deps {_tf_keras_requirement(versions)}")
    return "; ".join(commands)


def _model_garden_conflicts(versions: Versions) -> list[Conflict]:
    garden = _minor(versions, "tf-models-official")
    installed = [name for name in TENSORFLOW_BUILDS if versions.get(name)]
    if not garden:
        if importlib.util.find_spec("orbit") is not None:
            return []
        problem = (
            "Orbit, the training loop, is missing: it comes with tf-models-official."
        )
        command = "pip install --no-deps tf-models-official==2.20.0"
        return [_conflict(problem, f"{command} {_tf_keras_requirement(versions)}")]
    tensorflow: tuple[int, ...] = _minor(versions, installed[0]) if installed else ()
    # Model Garden 2.20's Orbit imports names that TensorFlow 2.19 does not have; 2.20.0
    # also runs under 2.21.
    compatible: dict[tuple[int, ...], tuple[int, ...]] = {
        (2, 19): (2, 19),
        (2, 20): (2, 20),
        (2, 21): (2, 20),
    }
    wanted = compatible.get(tensorflow)
    if wanted is None or garden == wanted:
        return []
    text = f"{wanted[0]}.{wanted[1]}"
    deps = " --no-deps" if tensorflow != wanted else ""
    return [
        _conflict(
            f"tf-models-official {versions['tf-models-official']} is not compatible "
            f"with TensorFlow {_text(versions, installed[0])}.",
            f"pip install{deps} 'tf-models-official=={text}.*'",
        )
    ]


def _other_conflicts(versions: Versions) -> list[Conflict]:
    found = []
    keras = _minor(versions, "keras")
    if keras and keras < (3, 12):
        problem = f"Keras {versions['keras']} is older than 3.12."
        found.append(_conflict(problem, "pip install 'keras>=3.12,<3.16'"))
    if versions.get("libtpu") and not versions.get("tensorflow-tpu"):
        problem = "libtpu (from jax[tpu]) conflicts with TensorFlow."
        fix = "Install the extra `preflight` in a separate virtual environment."
        found.append(_conflict(problem, fix))
    if versions.get("apache-beam") and not versions.get("google-crc32c"):
        problem = "Beam's WriteToTFRecord raises without google-crc32c."
        found.append(_conflict(problem, "pip install google-crc32c"))
    return found


def _environment_conflicts(environment: Mapping[str, str]) -> list[Conflict]:
    found = []
    backend = environment.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        problem = f"KERAS_BACKEND={backend}: this package needs Keras on TensorFlow."
        found.append(_conflict(problem, "export KERAS_BACKEND=tensorflow"))
    if environment.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        problem = "TF_USE_LEGACY_KERAS makes other libraries use Keras 2."
        found.append(_conflict(problem, "unset TF_USE_LEGACY_KERAS"))
    return found


def _conflict(problem: str, fix: str) -> Conflict:
    return {"problem": problem, "fix": fix}


def _text(versions: Versions, name: str) -> str:
    return versions.get(name) or ""


def _minor(versions: Versions, name: str) -> tuple[int, ...]:
    numbers = re.match(r"(\d+)\.(\d+)", _text(versions, name))
    return tuple(map(int, numbers.groups())) if numbers else ()
