"""Set up every test alike: four logical CPU devices, fixed seeds, no gin left over."""
# SPDX-License-Identifier: Apache-2.0

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As importing vit_scaling does.

import numpy as np
import pytest
import tensorflow as tf

SEED = 0

# Devices can be split only before TensorFlow starts, so no fixture can do it.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Start every test from the same random state."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 (for libraries that use the global state)
    tf.random.set_seed(SEED)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)


@pytest.fixture(autouse=True)
def no_gin_left_over() -> Iterator[None]:
    """Clear gin's configuration before and after a test, if anything has loaded gin."""
    _clear_gin()
    yield
    _clear_gin()


@pytest.fixture(scope="session")
def digit_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with scikit-learn's digits as TFRecords, written once."""
    from vit_scaling.data.writing.image_sources import Digits
    from vit_scaling.data.writing.split_writer import write_tfrecords

    folder = tmp_path_factory.mktemp("digits")
    for split in ("train", "test"):
        write_tfrecords(
            Digits(split), output_dir=str(folder), split=split, num_shards=2, workers=1
        )
    return folder


def _clear_gin() -> None:
    if "gin" in sys.modules:
        sys.modules["gin"].clear_config()
