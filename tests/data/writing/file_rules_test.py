"""Which files are images of a class."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from vit_scaling.data.writing import file_rules


def never(count):
    raise AssertionError("A file with an image's suffix is not opened.")


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.tar.webp"])
def test_a_suffix_is_enough(name):
    assert file_rules.is_image(name, never)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"])
def test_other_files_are_recognised_by_their_first_bytes(kind):
    data = sets.encoded(sets.tile(0), kind)
    assert file_rules.is_image("image", lambda count: data[:count])


@pytest.mark.parametrize("data", [b"", b"BM", b"BMW drives on and on", b"RIFF1234WAVE"])
def test_other_content_is_no_image(data):
    assert not file_rules.is_image("file", lambda count: data[:count])


def test_hidden_and_system_names():
    for name in (".git", "._a.jpg", "__MACOSX", "@eaDir", "#recycle", "lost+found"):
        assert file_rules.is_hidden(name)
    assert not file_rules.is_hidden("__init__")


@pytest.mark.parametrize("others", [set(), {"extra"}])
def test_names_of_splits_are_no_classes(others):
    file_rules.check_not_splits({"train", "bus"}, "x")
    with pytest.raises(ValueError, match="x has test, train in place of classes"):
        file_rules.check_not_splits({"train", "test"} | others, "x")
