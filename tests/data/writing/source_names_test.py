"""The text that names a source of images is checked before anything is read."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.data.writing.source_names import check_source


@pytest.mark.parametrize(
    "text", ["folder:x", "tar:a-*.tar", "tfds:mnist:test", "digits"]
)
def test_every_form_is_accepted(text):
    check_source(text)


@pytest.mark.parametrize("text", ["", "folder", "folder:", "digits:x", "zip:x"])
def test_other_texts_are_rejected(text):
    with pytest.raises(ValueError, match="`source` must be one of folder:PATH"):
        check_source(text)
