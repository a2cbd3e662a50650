"""Sources on their way to other processes."""
# SPDX-License-Identifier: Apache-2.0

import pickle

from vit_scaling.data import subsets
from vit_scaling.data.writing.image_entries import (
    Entry,
    EntryTable,
    Listing,
    StoredEntries,
    format_summary,
)
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


def entries(count):
    return [
        Entry(f"é{n}", (f"{n % 3}", "b")[: n % 3], ("x.tar", n), 2**40 + n)
        for n in range(count)
    ]


def test_a_table_keeps_images_and_both_orders():
    images = entries(500)
    table = EntryTable(images)
    assert (len(table), list(table)) == (500, images)
    assert list(table.iterate(shuffle=False)) == images
    assert list(table.iterate(shuffle=True)) == sorted(
        images, key=lambda image: subsets.hash_key(b"order/" + image.key.encode())
    )
    assert table.count_bytes() == sum(image.size_bytes for image in images)


def test_repeated_keys_are_found():
    images = entries(9)
    assert EntryTable(images).find_repeated_keys() is None
    table = EntryTable([*images, images[7], images[2], images[7]])
    assert table.find_repeated_keys() == ("é2", 2, 2)
    assert EntryTable().find_repeated_keys() is None


def test_stored_images_are_read_in_another_process(tmp_path):
    images = entries(5)
    stored = StoredEntries(str(tmp_path / "entries"), 5)
    stored.store(iter(images))
    sent = pickle.loads(pickle.dumps(stored))
    assert (len(sent), list(sent)) == (5, images)
