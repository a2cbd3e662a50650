"""Rules of the repository: file sizes, first lines, a test file per module."""
# SPDX-License-Identifier: Apache-2.0

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vit_scaling"
LICENCE = "# SPDX-License-Identifier: Apache-2.0"
MAX_BYTES = 500_000
MAX_LINES = 400

# Where modules without a test file of their own are tested.
_REASONS: dict[str, tuple[str, ...]] = {
    "commands/folder_training_test.py: by processes": (
        "commands/evaluate.py",
        "commands/train.py",
        "trained_run.py",
    ),
    "measures speed: run by hand, only its --help is tested": (
        "commands/benchmarks/optimizer.py",
    ),
    "packaging and tools/test.sh: --help; the library call in its package": (
        "commands/optimizer_state.py",
    ),
    "optimization: classes_test, formulas_test, optimizer_test, path_rules_test": (
        "optimization/adafactor.py",
        "optimization/adam.py",
        "optimization/averaging.py",
        "optimization/serialization.py",
        "optimization/learning_rate_multipliers.py",
        "optimization/momentum.py",
        "optimization/state_variables.py",
        "optimization/base_schedule.py",
        "optimization/update_rule.py",
        "optimization/weight_decay.py",
    ),
}
TESTED_ELSEWHERE = {
    name: reason for reason, names in _REASONS.items() for name in names
}


def tracked_files() -> list[Path]:
    """Return all files that git tracks or would add."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    paths = [ROOT / name for name in done.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py"]


def python_files() -> list[Path]:
    return [p for p in tracked_files() if p.suffix == ".py" and p.stat().st_size]


def test_only_reports_of_studies_are_large_files():
    large = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.stat().st_size > MAX_BYTES
        and not path.is_relative_to(ROOT / "gin" / "studies")
    ]
    assert not large, large


def test_gin_folder_is_not_a_package():
    assert not list((ROOT / "gin").rglob("__init__.py"))


def test_no_bazel_link_is_tracked():
    assert not [p for p in tracked_files() if p.parts[len(ROOT.parts)][:6] == "bazel-"]


def test_readme_names_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "bash tools/quickstart.sh" in text
    assert "bash tools/test.sh" in text


def test_every_file_starts_with_its_purpose_and_licence():
    wrong = []
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text))
        if not (docstring and text.startswith('"""') and LICENCE in text):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, wrong


def test_no_module_is_too_long():
    lengths = {str(p.relative_to(ROOT)): p.read_text().count("\n") for p in modules()}
    assert not {name: n for name, n in lengths.items() if n > MAX_LINES}


def test_package_does_not_use_legacy_keras():
    pattern = re.compile(r"\btf\.keras\b|\btf_keras\.|import tf_keras")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line.split("#")[0])
    ]
    assert not wrong, wrong


def test_every_tool_is_a_shim_of_a_command():
    for path in sorted((ROOT / "tools").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert f"vit_scaling.commands.{path.stem} import main" in text, path.name
        assert 'if __name__ == "__main__":' in text, path.name  # Worker processes.
        assert (PACKAGE / "commands" / path.name).is_file(), path.name


def test_every_command_has_a_tool():
    commands = {
        p.stem
        for p in (PACKAGE / "commands").glob("*.py")
        if "def main(" in p.read_text() and p.stem != "main"
    }
    assert commands == {p.stem for p in (ROOT / "tools").glob("*.py")}


def test_shell_scripts_stop_at_the_first_error():
    for path in [*sorted((ROOT / "tools").glob("*.sh")), ROOT / ".ci" / "run"]:
        assert "set -euo pipefail" in path.read_text(encoding="utf-8"), path.name


def test_every_module_has_a_test_file():
    names = [module.relative_to(PACKAGE) for module in modules()]
    missing = [
        str(name)
        for name in names
        if not (ROOT / "tests" / name.with_name(f"{name.stem}_test.py")).is_file()
    ]
    assert not set(missing) - TESTED_ELSEWHERE.keys(), missing


def test_exceptions_are_still_needed():
    for name in TESTED_ELSEWHERE:
        assert (PACKAGE / name).is_file(), name
        own = (ROOT / "tests" / name).with_name(f"{Path(name).stem}_test.py")
        assert not own.is_file(), name


def test_bazel_makes_a_test_of_every_file_and_runs_the_fast_ones():
    text = (ROOT / "BUILD").read_text(encoding="utf-8")
    assert 'for file in glob(["tests/**/*_test.py"])' in text
    fast = re.findall(r'"(tests/[\w/]+_test\.py)"', text)
    assert len(fast) >= 5
    assert not [name for name in fast if not (ROOT / name).is_file()]
