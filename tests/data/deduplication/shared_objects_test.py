"""Objects in files: equal when loaded, their arrays mapped and not copied."""
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys

import numpy as np
import pytest

from vit_scaling.data.deduplication import shared_objects


@pytest.mark.parametrize("arrays", [[], [0], [3], [0, 7, 100_000]])
def test_what_is_loaded_is_what_was_stored(tmp_path, arrays):
    value = {"keys": [(0, 1)], "arrays": [np.arange(n, dtype=np.uint8) for n in arrays]}
    shared_objects.store(str(tmp_path / "object"), value)
    loaded = shared_objects.load(str(tmp_path / "object"))
    assert loaded["keys"] == value["keys"]
    for one, other in zip(loaded["arrays"], value["arrays"], strict=True):
        np.testing.assert_array_equal(one, other)
        assert not one.flags.writeable


def test_arrays_are_not_read_into_memory(tmp_path):
    path = str(tmp_path / "object")
    shared_objects.store(path, np.zeros(300 * 2**20, np.uint8))
    script = (
        "import resource, sys;"
        "from vit_scaling.data.deduplication import shared_objects;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"value = shared_objects.load({path!r}); assert value[2**28] == 0;"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "sys.exit(after - before > 100 * 1024)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
