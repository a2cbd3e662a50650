"""The training split makes the class indices; the others follow."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import pytest

from vit_scaling.data.tfrecords import read_class_names
from vit_scaling.data.writing.class_names import assign_class_names, write_class_names
from vit_scaling.data.writing.image_entries import Entry


@dataclasses.dataclass
class Named:
    """A source with these classes."""

    names: tuple[str, ...]

    def class_names(self):
        return self.names


def entries(*names):
    return [Entry(f"{n}", (name,), None) for n, name in enumerate(names)]


def test_the_first_split_defines_the_names(tmp_path):
    given = assign_class_names(
        Named(("a", "b c")), entries("a"), str(tmp_path), "train"
    )
    assert given == ("a", "b c") == read_class_names(str(tmp_path / "classes.txt"))


def test_a_later_split_takes_them_and_warns_of_missing_classes(tmp_path, caplog):
    write_class_names(str(tmp_path / "classes.txt"), ("z", "a", "m"))
    given = assign_class_names(
        Named(("a", "m")), entries("m", "a"), str(tmp_path), "test"
    )
    assert given == ("z", "a", "m")
    assert "no image of 1 of the 3 classes (z)" in caplog.text


def test_an_unknown_class_raises(tmp_path):
    write_class_names(str(tmp_path / "classes.txt"), ("a",))
    with pytest.raises(ValueError, match=r"are not in .*: 'b' \(1 in all\)"):
        assign_class_names(Named(("a", "b")), entries("b"), str(tmp_path), "test")


@pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
def test_names_are_one_line_of_text(tmp_path, name):
    with pytest.raises(ValueError, match="must be one line of text"):
        write_class_names(str(tmp_path / "classes.txt"), ("a", name))
    assert not list(tmp_path.iterdir())


def test_names_that_look_alike_are_named(tmp_path, caplog):
    names = ("Cat", "cafe\u0301", "caf\u00e9", "cat", "cat ", "dog")
    assign_class_names(Named(names), entries(*names), str(tmp_path), "train")
    assert "['Cat', 'cat', 'cat ']" in caplog.text
    assert "['cafe\u0301', 'caf\u00e9']" in caplog.text and "dog" not in caplog.text
