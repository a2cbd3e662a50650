#!/bin/bash
# Make a virtual environment with this package in it, or reuse one that is up to date.
# Usage: bash tools/make_venv.sh DIR [EXTRA]     (PYTHON=python3.12 chooses another one)
set -euo pipefail

directory=$(realpath -m "${1:?usage: bash tools/make_venv.sh DIR [EXTRA]}")
extra=${2:+[$2]}
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "vit_scaling needs Python 3.10 or newer; received $("$python" --version)." >&2
  echo "Set PYTHON=/path/to/python3." >&2
  exit 1
}

# The environment depends on requirements, commands, Python and checkout.
fingerprint=$(
  {
    cat setup.py pyproject.toml
    ls vit_scaling/commands
    "$python" --version
    echo "$PWD $directory $extra"
  } | sha256sum
)
if [[ -f $directory/up_to_date && $(<"$directory/up_to_date") == "$fingerprint" ]]; then
  echo "Environment: $directory (up to date)"
  exit 0
fi

echo "Environment: $directory (installing; about 3.5 GB, some minutes)"
[[ -x $directory/bin/python ]] || "$python" -m venv "$directory"
rm -f "$directory/up_to_date"
pip=("$directory/bin/python" -m pip --disable-pip-version-check -qq)
"${pip[@]}" install --upgrade pip
"${pip[@]}" install --editable ".$extra"
echo "$fingerprint" >"$directory/up_to_date"
