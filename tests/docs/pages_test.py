"""The commands of the documentation work, and print what the pages record."""
# SPDX-License-Identifier: Apache-2.0

import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_tool(name):
    path = ROOT / "tools" / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run_pages = load_tool("run_pages")
PAGES = [path.relative_to(ROOT) for path in run_pages.pages_with_blocks()]


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=map(str, PAGES))
def test_page_runs(page):
    run_pages.run_page(ROOT / page, record=False)


def test_reference_pages_follow_from_the_code():
    reference = load_tool("record_reference")
    for name, make in reference.PAGES.items():
        recorded = (ROOT / "vit_scaling" / "docs" / name).read_text(encoding="utf-8")
        assert recorded == make(), f"{name} is outdated: bash tools/docs.sh --execute"


PAGE = """# Title

<!-- run: echo 5 > hidden -->

```bash
cat hidden
```

```text
5
```

```python
x = 4
print("x is", x)
```

```text
x is 4
```

```python
print(x + 0.5)
```

```text
4.5
```
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_outputs_are_compared_but_for_their_numbers(tmp_path):
    page = write(tmp_path / "page.md", PAGE)
    run_pages.run_page(page, record=False)
    write(page, PAGE.replace("x is 4", "x is 7"))
    run_pages.run_page(page, record=False)
    write(page, PAGE.replace("x is 4", "y is 4"))
    with pytest.raises(run_pages.PageError, match="y is 4"):
        run_pages.run_page(page, record=False)


def test_recording_writes_the_outputs(tmp_path):
    page = write(tmp_path / "page.md", PAGE.replace("x is 4", "").replace("4.5", ""))
    run_pages.run_page(page, record=True)
    assert page.read_text(encoding="utf-8") == PAGE


@pytest.mark.parametrize("old, new", [("cat hidden", "cat nothing"), ("x + 0.5", "y")])
def test_a_block_that_fails_stops_the_page(tmp_path, old, new):
    page = write(tmp_path / "page.md", PAGE.replace(old, new))
    with pytest.raises(run_pages.PageError, match="failed"):
        run_pages.run_page(page, record=False)


def test_progress_bars_are_left_out_of_outputs():
    bar = "{:3}%|{}| {}/2 [00:02<00:01, {:.2f}s/image]"
    bars = [bar.format(n, "█" * (n // 10), n // 50, n / 30) for n in (0, 50, 100)]
    output = f"\r{bars[0]}a,b\n1,2\n\r{bars[1]}3,4\n\r{bars[2]}\n"
    assert run_pages.shorten(output, "/folder") == "a,b\n1,2\n3,4\n\n"
    assert run_pages.mask(f"\r{bars[0]}a\n") == run_pages.mask("a\n") == ["a"]


def test_settings_of_the_tests_do_not_reach_a_page(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    block = "```bash\necho level ${TF_CPP_MIN_LOG_LEVEL-unset}\n```\n"
    text = f"{block}\n```text\nlevel unset\n```\n"
    run_pages.run_page(write(tmp_path / "page.md", text), record=False)


def test_every_page_is_in_the_table_of_contents():
    docs = ROOT / "vit_scaling" / "docs"
    summary = (docs / "SUMMARY.md").read_text(encoding="utf-8")
    for path in docs.rglob("*.md"):
        name = path.relative_to(docs).as_posix()
        assert name == "SUMMARY.md" or f"({name})" in summary, name
