"""A text without quotes in gin gets a message that quotes it."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.unquoted_texts import explain_unquoted_text

ERROR = "Unable to parse value. (line 1)"


def test_only_texts_without_quotes_are_explained():
    good = ["X = 'map'", "Y = 0.5", "Z = @part()", "A = True", "B = [1]", "C = -1"]
    assert explain_unquoted_text(ERROR, [], good) is None
    assert explain_unquoted_text("Another error", [], ["X = map"]) is None


@pytest.mark.parametrize("value", ["map", "B/16", "/data/train-*", "gs://b/x", "./x"])
def test_the_binding_to_write_is_given(value):
    message = explain_unquoted_text(ERROR, [], [f"X={value}"])
    assert message is not None and message.endswith(f"""--gin_param="X = '{value}'".""")
