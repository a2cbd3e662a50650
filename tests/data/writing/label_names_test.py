"""Class names from labels: names are sorted, integers are indices."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.data.writing.label_names import name_labels, sort_names


def test_names_of_folders_are_sorted_as_numbers_if_all_are_integers():
    assert sort_names(["10", "9", "2"]) == ("2", "9", "10")
    assert sort_names(["10", "9", "b"]) == ("10", "9", "b")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"dog", "cat"}, ("cat", "dog")),
        ({"3", "1"}, ("0", "1", "2", "3")),
        ({str(n) for n in range(12)}, tuple(str(n) for n in range(12))),
        ({"02", "01", "10"}, ("01", "02", "10")),
        ({"0", "1", "a", "b"}, ("0", "1", "a", "b")),
        (set(), ()),
    ],
)
def test_integers_are_indices_and_other_labels_names(labels, names):
    assert name_labels(labels, "x.csv") == names


@pytest.mark.parametrize(
    "labels", [{"10", "cat"}, {"1", "cat"}, {"2019", "2020", "all"}]
)
def test_integers_among_names_raise_unless_they_are_the_index(labels):
    with pytest.raises(ValueError, match=r"^x\.csv: .* a class index or a name"):
        name_labels(labels, "x.csv")


@pytest.mark.parametrize("label", ["1.0", "-1", "1e3", "10000000"])
def test_other_numbers_raise(label):
    with pytest.raises(ValueError, match="is not a class index"):
        name_labels({label, "2"}, "x.csv")
