"""One BLAS thread for many small fits."""
# SPDX-License-Identifier: Apache-2.0

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[None]:
    """Return a context in which BLAS uses one thread.

    On matrices of five columns, threads that wait for each other take ten times as long
    as one thread does.
    """
    return _controller().limit(limits=1)


@functools.cache  # Finding the loaded libraries takes milliseconds.
def _controller() -> ThreadpoolController:
    import scipy.optimize  # noqa: F401  (loads SciPy's own BLAS, so that it is found)

    return ThreadpoolController()
