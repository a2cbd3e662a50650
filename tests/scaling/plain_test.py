"""JSON has no NumPy and no infinity."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib

import numpy as np

from vit_scaling.scaling.plain import plain


def test_results_become_what_json_holds():
    value = {
        1: np.float64(0.5),
        "list": (np.int64(3), float("inf"), np.array([1.0, np.nan])),
        "path": pathlib.Path("a/b"),
        "kept": [True, None, "text"],
    }
    found = json.loads(json.dumps(plain(value), allow_nan=False))
    assert found == {
        "1": 0.5,
        "list": [3, None, [1.0, None]],
        "path": "a/b",
        "kept": [True, None, "text"],
    }
