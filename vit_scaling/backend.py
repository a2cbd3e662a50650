"""Checks of the Keras backend: that it is TensorFlow, and whether it targets a TPU."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import contextvars
from collections.abc import Iterator

import keras

_FOR_TPU = contextvars.ContextVar("for_tpu", default=False)


def require_tensorflow() -> None:
    """Raise unless Keras 3 runs on TensorFlow.

    The training step, `tf.data` and the strategies are TensorFlow's. With another
    backend they would fail later, with a less clear message.

    Raises:
        ImportError: Keras is older than 3, or its backend is not TensorFlow.
    """
    if keras.__version__.startswith(("1.", "2.")):
        raise ImportError(
            "vit_scaling needs Keras 3; received keras "
            f"{keras.__version__}. Install it with `pip install 'keras>=3.12'`."
        )
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            "vit_scaling needs Keras on the TensorFlow backend; received backend "
            f"{backend!r}. Set the environment variable KERAS_BACKEND=tensorflow (or "
            '"backend": "tensorflow" in ~/.keras/keras.json) before Keras is imported.'
        )


@contextlib.contextmanager
def lowering_for_tpu() -> Iterator[None]:
    """Return a context in which functions are traced for a TPU, with none attached."""
    token = _FOR_TPU.set(True)
    try:
        yield
    finally:
        _FOR_TPU.reset(token)


def targets_tpu() -> bool:
    """Return whether the functions traced now will run on a TPU."""
    if _FOR_TPU.get():
        return True
    import tensorflow as tf  # Not at import: the backend is checked first.

    return bool(tf.config.list_logical_devices("TPU"))
