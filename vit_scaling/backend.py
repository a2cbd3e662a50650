"""Refuse every Keras backend but TensorFlow, at import and with a way out."""
# SPDX-License-Identifier: Apache-2.0

import keras


def require_tensorflow() -> None:
    """Raise unless Keras 3 runs on TensorFlow.

    The training step, `tf.data` and the strategies are TensorFlow's own: on another
    backend they would fail later and elsewhere.

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
