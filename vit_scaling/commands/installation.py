"""What an installation holds, and which of its parts are known not to go together."""
# SPDX-License-Identifier: Apache-2.0

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence

# What training needs, then what may be there. Orbit and Model Garden's
# distribute_utils import tf_keras, which `--no-deps` leaves out.
NEEDED = (
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
    *NEEDED,
    "tensorboard",
    "tensorflow-datasets",
    "protobuf",
    "jax",
    "libtpu",
    "apache-beam",
    "google-crc32c",
)
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu")
KNOWN = ("2.19", "2.20", "2.21")  # TensorFlow's versions that were run.

Versions = Mapping[str, str | None]
Clash = dict[str, str]


def installed_versions() -> dict[str, str | None]:
    """Return the version of each package that matters; None is not installed."""
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
    except Exception as error:  # Whatever keeps TensorFlow from starting is the answer.
        return {"error": [f"TensorFlow does not start: {error}"]}


def _names(config: object, kind: str) -> list[str]:
    physical = config.list_physical_devices(kind)  # type: ignore[attr-defined]
    return [device.name for device in physical] or ["none"]


def clashes(
    versions: Versions, python: Sequence[int], environment: Mapping[str, str]
) -> list[Clash]:
    """Return what is known not to go together, each with what mends it.

    Args:
        versions: From `installed_versions`.
        python: Such as (3, 11).
        environment: Such as `os.environ`.
    """
    return [
        *_python(python, versions),
        *_tensorflow(versions),
        *_model_garden(versions),
        *_others(versions),
        *_environment(environment),
    ]


def _python(python: Sequence[int], versions: Versions) -> list[Clash]:
    text = f"{python[0]}.{python[1]}"
    if tuple(python) < (3, 10):
        return [_clash(f"Python {text} is too old.", "Use Python 3.10 to 3.13.")]
    if tuple(python) < (3, 11) and _minor(versions, "keras") >= (3, 13):
        return [
            _clash(
                f"Keras {versions['keras']} needs Python 3.11; this is {text}.",
                "pip install 'keras>=3.12,<3.13', or use Python 3.11.",
            )
        ]
    return []


def _tensorflow(versions: Versions) -> list[Clash]:
    present = [name for name in TENSORFLOWS if versions.get(name)]
    missing = [name for name in NEEDED if not versions.get(name)]
    found = []
    if missing:
        mend = _install(missing, versions)
        found.append(_clash(f"{', '.join(missing)} not installed.", mend))
    if not present:
        mend = "pip install tensorflow (on a TPU VM: tensorflow-tpu)."
        return [*found, _clash("TensorFlow is not installed.", mend)]
    if len(present) > 1:
        keep = "tensorflow-tpu" if "tensorflow-tpu" in present else "tensorflow"
        mend = (
            f"pip uninstall -y {' '.join(present)}; pip install {keep}; then "
            f"pip install --no-deps tf-models-official {_tf_keras(versions)}: they "
            "ask for `tensorflow`."
        )
        told = f"{' and '.join(present)} overwrite each other's files."
        found.append(_clash(told, mend))
    version = _text(versions, present[0])
    if not version.startswith(KNOWN):
        told = f"TensorFlow {version} was not tried; {', '.join(KNOWN)} were."
        found.append(_clash(told, "pip install 'tensorflow==2.20.*'"))
    if _minor(versions, present[0]) >= (2, 21) and not versions.get("tensorboard"):
        told = "TensorFlow 2.21 no longer brings tensorboard, which the log needs."
        found.append(_clash(told, "pip install tensorboard"))
    return found


def _tf_keras(versions: Versions) -> str:
    """Return tf_keras as pip is to be asked for it: of TensorFlow's own version."""
    present = [name for name in TENSORFLOWS if versions.get(name)]
    minor = _minor(versions, present[-1]) if present else ()
    return f"'tf_keras=={minor[0]}.{minor[1]}.*'" if minor else "tf_keras"


def _install(missing: Sequence[str], versions: Versions) -> str:
    """Return the commands that install packages; tf_keras by itself.

    It asks for the package `tensorflow`, which must not be put over another build.
    """
    commands = []
    others = [name for name in missing if name != "tf_keras"]
    if others:
        commands.append(f"pip install {' '.join(others)}")
    if "tf_keras" in missing:
        commands.append(f"pip install --no-deps {_tf_keras(versions)}")
    return "; ".join(commands)


def _model_garden(versions: Versions) -> list[Clash]:
    garden = _minor(versions, "tf-models-official")
    installed = [name for name in TENSORFLOWS if versions.get(name)]
    if not garden:
        if importlib.util.find_spec("orbit") is not None:
            return []
        told = "Orbit, the training loop, is missing: it comes with tf-models-official."
        command = "pip install --no-deps tf-models-official==2.20.0"
        return [_clash(told, f"{command} {_tf_keras(versions)}")]
    tensorflow: tuple[int, ...] = _minor(versions, installed[0]) if installed else ()
    # Model Garden 2.20's Orbit imports what TensorFlow 2.19 does not have; 2.20.0 runs
    # under 2.21 too.
    goes_with: dict[tuple[int, ...], tuple[int, ...]] = {
        (2, 19): (2, 19),
        (2, 20): (2, 20),
        (2, 21): (2, 20),
    }
    wanted = goes_with.get(tensorflow)
    if wanted is None or garden == wanted:
        return []
    text = f"{wanted[0]}.{wanted[1]}"
    deps = " --no-deps" if tensorflow != wanted else ""
    return [
        _clash(
            f"tf-models-official {versions['tf-models-official']} does not go with "
            f"TensorFlow {_text(versions, installed[0])}.",
            f"pip install{deps} 'tf-models-official=={text}.*'",
        )
    ]


def _others(versions: Versions) -> list[Clash]:
    found = []
    keras = _minor(versions, "keras")
    if keras and keras < (3, 12):
        told = f"Keras {versions['keras']} is older than 3.12."
        found.append(_clash(told, "pip install 'keras>=3.12,<3.16'"))
    if versions.get("libtpu") and not versions.get("tensorflow-tpu"):
        told = "libtpu (from jax[tpu]) lies beside TensorFlow; the two do not mix."
        mend = "Give the extra `preflight` a virtual environment of its own."
        found.append(_clash(told, mend))
    if versions.get("apache-beam") and not versions.get("google-crc32c"):
        told = "Beam's WriteToTFRecord raises without google-crc32c."
        found.append(_clash(told, "pip install google-crc32c"))
    return found


def _environment(environment: Mapping[str, str]) -> list[Clash]:
    found = []
    backend = environment.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        told = f"KERAS_BACKEND={backend}: this package needs Keras on TensorFlow."
        found.append(_clash(told, "export KERAS_BACKEND=tensorflow"))
    if environment.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        told = "TF_USE_LEGACY_KERAS gives other libraries Keras 2 in place of 3."
        found.append(_clash(told, "unset TF_USE_LEGACY_KERAS"))
    return found


def _clash(what: str, mend: str) -> Clash:
    return {"what": what, "mend": mend}


def _text(versions: Versions, name: str) -> str:
    return versions.get(name) or ""


def _minor(versions: Versions, name: str) -> tuple[int, ...]:
    numbers = re.match(r"(\d+)\.(\d+)", _text(versions, name))
    return tuple(map(int, numbers.groups())) if numbers else ()
