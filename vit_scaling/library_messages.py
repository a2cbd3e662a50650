"""Hide what TensorFlow and other libraries print while one of our programs runs."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator

from absl import flags
from absl import logging as absl_logging

_PACKAGE = os.path.dirname(__file__) + os.sep


def hide_library_messages(verbosity: int = 0) -> None:
    """Let a program print only its own lines; call it before importing TensorFlow.

    Errors that a library logs from Python are still shown; those of TensorFlow's C++
    code are not, since what matters of them arrives as an exception.

    Args:
        verbosity: 1 or more shows everything, as `--verbosity=1` of each program.
    """
    if verbosity >= 1:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Also of child processes.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    flags.FLAGS.mark_as_parsed()  # Else absl first warns that none are parsed.
    absl_logging.use_absl_handler()  # Python's other loggers end there as well.
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.removeFilter(_is_shown)
    handler.addFilter(_is_shown)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(?!vit_scaling\b|__main__$)")


def short_message(text: str) -> str:
    """Return the cause in the text of a TensorFlow error, in one line.

    Left out are places in the graph, and what TensorFlow puts around an assertion.
    """
    frame = r"Graph execution error:|Detected at node .*|<stack traces .*"
    place = r"\[\[.*?\]\]|\{\{.*?\}\}|\[Op:.*?\]"
    cause = " ".join(re.sub(f"{frame}|{place}", "", text).split())
    asserted = re.search(r"assertion failed: \[(.+)\]", cause)
    return asserted[1].replace("\\'", "'") if asserted else cause


def hide_first_compilation() -> None:
    """Hide the line that XLA prints at its first compilation, which no level hides."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        return
    import tensorflow as tf  # Not at import: the level is set before.

    with _discard_standard_error(), tf.device("CPU"):
        tf.function(lambda: tf.zeros([]), jit_compile=True, autograph=False)()


@contextlib.contextmanager
def _discard_standard_error() -> Iterator[None]:
    """Return a context in which the process's standard error, C++ too, is discarded."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether this package has logged a record, or it is an error."""
    return record.pathname.startswith(_PACKAGE) or record.levelno >= logging.ERROR
