#!/bin/bash
# Build the documentation; a broken link or a missing page fails.
# Usage: bash tools/docs.sh [--execute [PAGE…]]
#   --execute   first run the pages' commands in .venv-test and record their output
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == --execute ]]; then
  shift
  bash tools/make_venv.sh .venv-test test
  PATH="$PWD/.venv-test/bin:$PATH" python tools/docs/run_pages.py --record "$@"
  PATH="$PWD/.venv-test/bin:$PATH" python tools/docs/record_reference.py
  for source in vit_scaling/docs/images/*.dot; do
    dot -Tsvg "$source" -o "${source%.dot}.svg"  # Graphviz, of the operating system.
  done
fi

venv=.venv-docs
if ! cmp -s tools/docs/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check -r tools/docs/requirements.txt
  cp tools/docs/requirements.txt "$venv"
fi
NO_MKDOCS_2_WARNING=true DISABLE_MKDOCS_2_WARNING=true "$venv/bin/mkdocs" build --quiet --strict --config-file tools/docs/mkdocs.yml --site-dir "$PWD/site"
echo "Open site/index.html."
