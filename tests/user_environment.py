"""The environment in which a user starts a program: none of the tests' own settings."""
# SPDX-License-Identifier: Apache-2.0

import os

_OF_TESTS = ("TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "PYTHONWARNINGS")


def user_environment() -> dict[str, str]:
    """Return this process's environment variables without those that tests set."""
    return {name: value for name, value in os.environ.items() if name not in _OF_TESTS}
