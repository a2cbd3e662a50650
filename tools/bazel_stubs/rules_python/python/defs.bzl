"""Forward the Python rules to Bazel's built-in rules."""

py_binary = native.py_binary
py_library = native.py_library
py_test = native.py_test
