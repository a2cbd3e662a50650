"""The Keras backend, the target of a trace, and programs that repeated parts share."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import contextvars
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import keras

_FOR_TPU = contextvars.ContextVar("for_tpu", default=False)
_PROGRAMS: contextvars.ContextVar[dict[Hashable, Callable] | None] = (
    contextvars.ContextVar("programs", default=None)
)


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


def has_only_cpus() -> bool:
    """Return whether the functions traced now will run on a CPU."""
    import tensorflow as tf

    return not (targets_tpu() or tf.config.list_logical_devices("GPU"))


@contextlib.contextmanager
def sharing_programs(programs: dict[Hashable, Callable] | None) -> Iterator[None]:
    """Return a context in which XLA compiles repeated parts once for each shape.

    Args:
        programs: Programs by key, kept by the caller; `share_program` adds to it. None
            ends the sharing.
    """
    token = _PROGRAMS.set(programs)
    try:
        yield
    finally:
        _PROGRAMS.reset(token)


def shares_programs() -> bool:
    """Return whether the parts traced now are compiled once for each shape."""
    return _PROGRAMS.get() is not None


def share_program(key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled program of `key`, or `function` where none are shared.

    A program is called once per part, such as an encoder block, with that part's
    weights, so compiling takes as long for 48 blocks as for one.

    Args:
        key: Everything apart from its arguments that the function depends on.
        function: Compiled at the first call of each key.
    """
    programs = _PROGRAMS.get()
    if programs is None:
        return function
    if key not in programs:
        import tensorflow as tf

        def part(*args: Any) -> Any:
            with sharing_programs(None):  # A part is one program, with all inside it.
                return function(*args)

        programs[key] = tf.function(part, jit_compile=True, autograph=False)
    return programs[key]
