#!/bin/bash
# The test command: format, lint, types, wheel, commands, documentation, tests.
# Usage: bash tools/test.sh [VENV_DIR [PYTEST_ARGUMENT…]]
set -euo pipefail

cd "$(dirname "$0")/.."
venv=$(realpath -m "${1:-.venv-test}")
shift || true
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
export PIP_DISABLE_PIP_VERSION_CHECK=1

bash tools/make_venv.sh "$venv" test
export PATH="$venv/bin:$PATH"

echo "== Format, lint, types"
ruff format --check .
ruff check .
mypy

echo "== Wheel, built and imported in a separate folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard |
  while IFS= read -r -d '' name; do [[ -f $name ]] && printf '%s\0' "$name"; done |
  xargs -0 cp --parents -t "$(mkdir -p "$work/source" && echo "$work/source")"
python -m pip wheel --quiet --no-deps --wheel-dir "$work/dist" "$work/source"
python -m pip install --quiet --no-deps --target "$work/installed" "$work"/dist/*.whl
(
  cd "$work"
  PYTHONPATH="$work/installed" python - <<'CHECK'
import concurrent.futures
import pathlib
import subprocess

import vit_scaling
from vit_scaling import gin_files

installed = pathlib.Path("installed").resolve()
for path in (vit_scaling.__file__, gin_files.root()):
    if installed not in pathlib.Path(path).resolve().parents:
        raise SystemExit(f"{path} is not in the installed wheel.")


from vit_scaling.commands.main import COMMANDS

program = installed / "bin/vit-scaling"


def check(name):
    """Raise unless `--help` of a command works."""
    command = [program, *name.split(), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"vit-scaling {name} --help: {done.stdout}{done.stderr}")


names = ["", *COMMANDS]
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    list(pool.map(check, names))
print(f"vit_scaling {vit_scaling.__version__}: {len(names)} commands print --help")
CHECK
)

echo "== Documentation"
bash tools/docs.sh

echo "== Tests"
python -m pytest -q -n 2 --dist loadfile --durations 15 "$@"
