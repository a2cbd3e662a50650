#!/bin/bash
# Build every Bazel target and run the fast tests with Debian's bazel-bootstrap, offline.
# Usage: bash tools/bazel_test.sh [VENV_DIR [BAZEL_ARGUMENT…]]
#
# Bazel 4 requires rules_cc, rules_java, rules_python and remote_coverage_tools even for
# pure Python; the stubs in tools/bazel_stubs/ provide them without network. Third-party
# Python packages come from the environment, whose python3 must be the first on PATH.
set -euo pipefail

cd "$(dirname "$0")/.."
venv=$(realpath -m "${1:-.venv-test}")
shift || true

bash tools/make_venv.sh "$venv" test
export PATH="$venv/bin:$PATH"

if ! command -v bazel >/dev/null; then
  echo "Installing bazel-bootstrap (38 MB)"
  as_root=$([[ $(id -u) == 0 ]] || echo sudo)
  $as_root apt-get update -qq
  $as_root apt-get install -y -qq bazel-bootstrap >/dev/null
fi

# No symbolic links: tools that walk the tree would follow them into Bazel's output.
options=(--symlink_prefix=/ --noshow_progress)
bazel build "${options[@]}" //...
bazel test "${options[@]}" --test_output=errors "$@" //...
