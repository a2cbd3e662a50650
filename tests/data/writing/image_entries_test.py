"""Sources on their way to other processes."""
# SPDX-License-Identifier: Apache-2.0

import pickle

from vit_scaling.data.writing.image_entries import Listing, format_summary
from vit_scaling.data.writing.image_files import CsvFile


def test_a_source_is_sent_without_its_list_of_images(tmp_path):
    (tmp_path / "list.csv").write_text("path,labels\na.png,cat\n")
    (tmp_path / "a.png").touch()
    source = CsvFile(str(tmp_path / "list.csv"))
    assert len(source.entries()) == 1
    sent = pickle.loads(pickle.dumps(source))
    assert sent == source
    assert set(vars(sent)) == {"path", "separator"}


def test_skipped_files_are_all_counted_and_the_first_are_named():
    listing = Listing()
    for number in range(7):
        listing.skip(f"{number}\udce9", "hidden")  # As of a name that is not UTF-8.
    summary = listing.summarize()
    assert (summary["seen"], summary["used"], summary["skipped"]) == (7, 0, 7)
    names = [f"{number}\\udce9" for number in range(5)]
    assert summary["reasons"] == {"hidden": {"count": 7, "first": names}}
    assert format_summary(summary).endswith(f"7 skipped, hidden: {', '.join(names)}, …")
