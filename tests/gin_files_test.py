"""Gin files are found by name; bindings that no run reads raise an error."""
# SPDX-License-Identifier: Apache-2.0

import os

import gin
import pytest

from vit_scaling import gin_files

calls = []


@gin.register(module="vit_scaling.tests")
def part(width=1, depth=gin.REQUIRED):
    return ("part", width, depth)


@gin.register(module="vit_scaling.tests")
def run(make=None, steps=10, also=None):
    calls.append(make)
    return make() if callable(make) else make


@gin.register(module="vit_scaling.tests")
def unused(value=0):
    return value


KNOWN = {"part": part, "run": run, "unused": unused}
SELECTOR = "vit_scaling.tests.run"


@gin.register(module="vit_scaling.tests")
def open_part(width=1, **options):
    return ("open_part", width, options)


def parse(text, *bindings, tmp_path, known=None, renamed=None):
    file = tmp_path / "config.gin"
    file.write_text(text)
    calls.clear()
    gin_files.parse(
        [str(file)],
        bindings,
        known=known or KNOWN,
        roots=[SELECTOR],
        renamed=renamed,
    )


def called():
    return gin.get_configurable(SELECTOR)()


GOOD = """
DEPTH = 3
run.make = @big/part()
run.steps = %STEPS
STEPS = 7
part.depth = %DEPTH
big/part.width = 5
"""


def test_scopes_and_macros_that_are_read_are_accepted(tmp_path):
    parse(GOOD, tmp_path=tmp_path)
    assert called() == ("part", 5, 3)


def test_later_files_and_bindings_win(tmp_path):
    over = tmp_path / "over.gin"
    over.write_text("DEPTH = 4\nbig/part.width = 6")
    first = tmp_path / "first.gin"
    first.write_text(GOOD)
    gin_files.parse(
        [str(first), str(over)], ["DEPTH = 8"], known=KNOWN, roots=[SELECTOR]
    )
    assert called() == ("part", 6, 8)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("DEPHT = 4", r"No run reads.*DEPHT \(did you mean DEPTH\?\)"),
        ("bgi/part.width = 4", r"bgi/.*part\.width \(did you mean big/.*part\.width"),
        ("unused.value = 1", r"No run reads.*unused\.value\. Correct"),
        ("prat.width = 4", r"No configurable matching 'prat'.*Did you mean 'part'\?"),
        ("run.make = @prat()", r"No configurable matching.*prat.*Did you mean 'part'"),
        ("part.widht = 4", r"'part' doesn't have a parameter.*Did you mean 'width'\?"),
        ("run.make = @part(", "cannot be read"),
    ],
)
def test_a_misspelt_name_raises_with_the_nearest_name(tmp_path, binding, message):
    with pytest.raises(ValueError, match=message):
        parse(GOOD, binding, tmp_path=tmp_path)
    assert not calls


def test_the_nearest_name_comes_before_the_positions_in_files(tmp_path):
    with pytest.raises(ValueError, match="part") as raised:
        parse(GOOD + "\nprat.width = 2", tmp_path=tmp_path)
    first, *more = str(raised.value).splitlines()
    assert "Did you mean 'part'?" in first
    assert any("config.gin" in line for line in more)


@pytest.mark.parametrize(
    "binding",
    ["part.wide = 4", "big/part.wide = 4", "vit_scaling.tests.part.wide = 4"],
)
def test_an_earlier_name_of_a_binding_raises_with_the_new_name(tmp_path, binding):
    renamed = {"part.wide": "part.width"}
    message = r"^part\.wide was renamed: bind part\.width\."
    with pytest.raises(ValueError, match=message):
        parse(GOOD, binding, tmp_path=tmp_path, renamed=renamed)
    gin.clear_config()
    with pytest.raises(ValueError, match=message + "\n.*line 8"):
        parse(GOOD + binding, tmp_path=tmp_path, renamed=renamed)


def test_an_earlier_name_raises_also_if_any_option_is_accepted(tmp_path):
    binding = "run.make = @open_part()\nopen_part.decay = 4"
    parse(binding, tmp_path=tmp_path)
    with gin.unlock_config(), pytest.raises(ValueError, match=r"bind run\.decay\."):
        parse(binding, tmp_path=tmp_path, renamed={"open_part.decay": "run.decay"})


def test_a_macro_that_only_an_unread_binding_reads_is_unread_too(tmp_path):
    with pytest.raises(ValueError, match="OTHER"):
        parse(GOOD + "OTHER = 1\nunused.value = %OTHER", tmp_path=tmp_path)


def test_all_missing_values_are_named_at_once(tmp_path):
    text = """
    A = %gin.REQUIRED
    B = %gin.REQUIRED
    C = 1
    run.make = [%A, %B, %C]
    run.steps = %gin.REQUIRED
    """
    with pytest.raises(ValueError, match=r"A, B, .*run\.steps.*--gin_param='NAME = v"):
        parse(text, tmp_path=tmp_path)


def test_a_misspelt_required_value_is_reported_with_the_right_name(tmp_path):
    text = "DEPTH = %gin.REQUIRED\nrun.make = %DEPTH"
    with pytest.raises(
        ValueError, match=r"required for: DEPTH.*DEPHT \(did you mean D"
    ):
        parse(text, "DEPHT = 4", tmp_path=tmp_path)


def test_a_binding_satisfies_a_required_value(tmp_path):
    parse("DEPTH = %gin.REQUIRED\nrun.make = %DEPTH", "DEPTH = 4", tmp_path=tmp_path)
    assert called() == 4


# Finding.


def test_files_are_found_by_path_by_name_and_by_stem(tmp_path):
    quickstart = gin_files.root() / "experiments" / "quickstart.gin"
    for name in (
        str(quickstart),
        "experiments/quickstart.gin",
        "experiments/quickstart",
        "quickstart.gin",
        "quickstart",
    ):
        assert os.path.samefile(gin_files.find(name), quickstart)


def test_a_file_in_the_current_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "config.gin").write_text("")
    monkeypatch.chdir(tmp_path)
    assert gin_files.find("config.gin").resolve() == tmp_path / "config.gin"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("experiments/vit_b17.gin", "experiments/vit_b1"),
        ("experiments/quikstart", "experiments/quickstart.gin"),
        ("smok", "runtime/smoke.gin"),
        ("models/quickstart.gin", "experiments/quickstart.gin"),
    ],
)
def test_an_unknown_file_raises_with_the_nearest_name(name, nearest):
    with pytest.raises(FileNotFoundError, match=rf"`gin_file`.*{name}.*{nearest}"):
        gin_files.find(name)


def test_an_unknown_include_raises_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be read.*modls/vit\.gin"):
        parse("include 'modls/vit.gin'", tmp_path=tmp_path)


# The text that repeats a run.


def values_after(text, tmp_path):
    """Parse a text in a cleared configuration and return the run's values."""
    gin.clear_config()
    parse(text, tmp_path=tmp_path)
    return called()


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_operative_text_repeats_the_run(tmp_path, when):
    parse(GOOD, "big/part.width = 6", tmp_path=tmp_path)
    if when == "after":
        called()
    text = gin_files.operative_text()
    assert values_after(text, tmp_path) == ("part", 6, 3)


def test_bindings_of_functions_not_called_yet_are_in_the_text(tmp_path):
    # As a loss is, which is called when the first step is traced.
    long = list(range(50))  # Gin prints it over several lines.
    parse(
        "run.make = @part\nrun.also = %LONG\nLONG = %DEEP\nDEEP = %N\nN = 1\n"
        f"part.depth = {long}",
        tmp_path=tmp_path,
    )
    gin.get_configurable(SELECTOR)(make=None)
    text = gin_files.operative_text()
    assert "# Bound as well:" in text
    assert values_after(text, tmp_path) == ("part", 1, long)


def test_defaults_in_use_are_in_the_text(tmp_path):
    parse(GOOD, tmp_path=tmp_path)
    called()
    text = gin_files.operative_text()
    assert "run.also = None" in text and "big/part.depth = %DEPTH" in text


def effective(text, *bindings, tmp_path):
    gin.clear_config()
    parse(text, *bindings, tmp_path=tmp_path)
    return gin_files.effective_settings({SELECTOR: run})


def test_every_setting_that_a_root_reads_has_its_name_and_value(tmp_path):
    settings = effective(GOOD, tmp_path=tmp_path)
    prefix = "tests"
    assert settings == {
        f"{prefix}.run.make": (f"{prefix}.run.make", "@big/part()"),
        f"{prefix}.run.steps": ("STEPS", "7"),
        f"{prefix}.run.also": (f"{prefix}.run.also", "None"),
        f"big/{prefix}.part.width": (f"big/{prefix}.part.width", "5"),
        f"big/{prefix}.part.depth": ("DEPTH", "3"),
    }


def test_settings_are_equal_wherever_a_value_is_bound(tmp_path):
    direct = GOOD.replace("%STEPS\nSTEPS = 7", "7").replace(
        "big/part.width", "part.width"
    )
    before, now = (effective(text, tmp_path=tmp_path) for text in (GOOD, direct))
    assert {key: value for key, (_, value) in before.items()} == {
        key: value for key, (_, value) in now.items()
    }


def test_macros_inside_collections_are_settings_too(tmp_path):
    text = "run.also = {'a': [%ONE, @part]}\nONE = 1\npart.depth = 2"
    settings = effective(text, tmp_path=tmp_path)
    assert settings["tests.run.also"][1] == "{'a': [1, @part]}"
    assert settings["tests.part.depth"][1] == "2"


@pytest.mark.parametrize("value", ["map", "B/16", "/data/train-*", "gs://b/x", "./x"])
def test_a_text_without_quotes_gets_the_binding_to_write(value, tmp_path):
    advice = f"""Write --gin_param="DEPTH = '{value}'"."""
    with pytest.raises(ValueError, match=r"A text needs quotes") as caught:
        parse(GOOD, f"DEPTH={value}", tmp_path=tmp_path)
    assert str(caught.value).endswith(advice)


def test_a_text_without_quotes_in_a_file_is_named_with_its_line(tmp_path):
    with pytest.raises(ValueError, match=r"line 2 of .*gin.*Write DEPTH = 'map'"):
        parse("WIDTH = 0.5\nDEPTH = map  # The depth.\n", tmp_path=tmp_path)
