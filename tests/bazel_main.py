"""Run pytest on the one file that a Bazel py_test names."""
# SPDX-License-Identifier: Apache-2.0

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
