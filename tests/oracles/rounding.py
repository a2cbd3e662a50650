"""Round float64 arrays the way a stored moment is rounded."""
# SPDX-License-Identifier: Apache-2.0

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
}


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return `values` as they come back from an array of `dtype`, in float64."""
    return np.asarray(values).astype(DTYPES[dtype]).astype(np.float64)
