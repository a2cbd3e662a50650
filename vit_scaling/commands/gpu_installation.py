"""Find out why TensorFlow sees no GPU: driver, CUDA libraries, package, environment."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import importlib.metadata
import os
import pathlib
import re
from collections.abc import Mapping

DRIVER_FILE = pathlib.Path("/proc/driver/nvidia/version")
DEVICE_FILES = pathlib.Path("/dev")
# NVIDIA's PCI vendor number, by which a GPU shows even without a driver.
PCI_DEVICES = pathlib.Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"
CUDA_PACKAGE = "nvidia-cudnn-cu12"  # One of those that tensorflow[and-cuda] installs.


@dataclasses.dataclass(frozen=True)
class GPUFacts:
    """What can be known of a machine's GPUs without TensorFlow's GPU support.

    Attributes:
        has_card: Whether the PCI bus or /dev shows an NVIDIA device.
        driver: Version of the kernel's driver; None if it is not loaded.
        built_with_cuda: Whether TensorFlow's package can use GPUs.
        has_cuda_packages: Whether NVIDIA's libraries are installed by pip.
        hidden: Whether CUDA_VISIBLE_DEVICES hides all GPUs.
        tensorflow: TensorFlow's version, such as "2.20.0".
    """

    has_card: bool
    driver: str | None
    built_with_cuda: bool
    has_cuda_packages: bool
    hidden: bool
    tensorflow: str


def gather_facts(environment: Mapping[str, str] = os.environ) -> GPUFacts:
    """Return the facts of this machine."""
    import tensorflow as tf

    vendors = [path.read_text().strip() for path in PCI_DEVICES.glob("*/vendor")]
    devices = list(DEVICE_FILES.glob("nvidia[0-9]*"))
    return GPUFacts(
        has_card=NVIDIA in vendors or bool(devices),
        driver=_driver_version(),
        built_with_cuda=tf.test.is_built_with_cuda(),
        has_cuda_packages=_is_installed(CUDA_PACKAGE),
        hidden=environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"),
        tensorflow=tf.__version__,
    )


def explain_missing_gpu(facts: GPUFacts) -> dict[str, str] | None:
    """Return {"problem", "fix"} of a GPU that TensorFlow does not see.

    None if the machine has no NVIDIA card, so that there is nothing to fix.
    """
    if not facts.has_card:
        return None
    cuda = f"pip install 'tensorflow[and-cuda]=={facts.tensorflow}'"
    checks = (
        (
            facts.hidden,
            "CUDA_VISIBLE_DEVICES hides all GPUs.",
            "unset CUDA_VISIBLE_DEVICES",
        ),
        (
            facts.driver is None,
            "The machine has an NVIDIA GPU and no loaded driver.",
            "Install NVIDIA's driver, 525.60 or newer, and restart. In a container, "
            "start it with the GPUs (docker run --gpus all).",
        ),
        (
            not facts.built_with_cuda,
            f"TensorFlow {facts.tensorflow} was built without CUDA.",
            f"pip uninstall -y tensorflow tensorflow-cpu; {cuda}",
        ),
        (
            not facts.has_cuda_packages,
            "NVIDIA's CUDA libraries are not installed next to TensorFlow.",
            f'{cuda}, which is what pip install "vit_scaling[cuda]" does.',
        ),
    )
    for is_so, problem, fix in checks:
        if is_so:
            return {"problem": problem, "fix": fix}
    return {
        "problem": f"TensorFlow does not see the GPU (driver {facts.driver}).",
        "fix": "Start python -c 'import tensorflow as tf; "
        'tf.config.list_physical_devices("GPU")\' and read its first warning: it '
        "names the library that does not load. nvidia-smi must list the GPU.",
    }


def _driver_version() -> str | None:
    try:
        text = DRIVER_FILE.read_text()
    except OSError:
        return None
    found = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else "unknown"


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
