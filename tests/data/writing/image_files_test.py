"""Images in folders or listed in a CSV file."""
# SPDX-License-Identifier: Apache-2.0

import os

import pytest

from tests.data import sets
from vit_scaling.data.writing.image_files import CsvFile, Folder


def test_a_csv_line_may_have_any_number_of_labels(tmp_path):
    (tmp_path / "x.png").write_bytes(b"123")
    (tmp_path / "a,b.png").touch()
    (tmp_path / "abs.png").touch()
    absolute = f"{tmp_path}/abs.png"
    listing = tmp_path / "list.csv"
    lines = ["path,labels", "x.png,cat; dog ;cat", '"a,b.png",', f"{absolute},emu"]
    listing.write_text("\n".join(lines))
    source = CsvFile(str(listing))
    assert source.class_names() == ("cat", "dog", "emu")
    result = source.entries()
    assert [entry.labels for entry in result] == [("cat", "dog"), (), ("emu",)]
    assert [entry.key for entry in result] == ["x.png", "a,b.png", absolute]
    assert result[2].place == absolute
    assert [entry.size_bytes for entry in result] == [3, 0, 0]
    assert source.read(result[0]) == b"123"


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_column(tmp_path):
    listing = tmp_path / "list.csv"
    listing.write_text("path,labels\nx.png,cat\n", encoding="utf-8-sig")
    (tmp_path / "x.png").touch()
    (entry,) = CsvFile(str(listing)).entries()
    assert (entry.key, entry.labels) == ("x.png", ("cat",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "the columns `path` and `labels`"),
        ("", "the columns `path` and `labels`"),
        ("path,labels\nx.png,a\n,b\n", "line 3: `path` and `labels` must be given"),
        ("path,labels\nx.png\n", "line 2: `path` and `labels` must be given"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    listing = tmp_path / "list.csv"
    listing.write_text(text)
    with pytest.raises(ValueError, match=message):
        CsvFile(str(listing)).entries()


def test_a_folder_lists_its_images_by_class_at_any_depth(tmp_path):
    sets.folder(tmp_path, {"b": 2, "a": 1})
    deep = tmp_path / "a/x/y"
    deep.mkdir(parents=True)
    (deep / "Deep.JPG").write_bytes(b"12345")
    (tmp_path / "a/notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    source = Folder(str(tmp_path))
    assert source.class_names() == ("a", "b")
    result = source.entries()
    assert [entry.key for entry in result] == [
        "a/0002.png",
        "a/x/y/Deep.JPG",
        "b/0000.png",
        "b/0001.png",
    ]
    assert [entry.labels for entry in result] == [("a",), ("a",), ("b",), ("b",)]
    assert result[1].size_bytes == 5
    assert source.read(result[1]) == b"12345"


def test_a_folder_without_classes_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="one subfolder per class"):
        Folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="which is not one"):
        Folder(str(tmp_path / "nowhere"))


def reasons(source):
    """The number of skipped files by reason."""
    return {reason: files.count for reason, files in source.listing.skipped.items()}


def count_files(folder):
    """Files below a folder, counted without following links to folders."""
    return sum(len(files) for _, _, files in os.walk(folder))


def test_hidden_and_system_folders_are_no_classes_and_the_totals_add_up(tmp_path):
    sets.folder(tmp_path, {"cat": 2, "dog": 1})
    image = (tmp_path / "cat/0000.png").read_bytes()
    for name in (
        "__MACOSX/cat/._0000.png",
        ".ipynb_checkpoints/0.png",
        "cat/.ipynb_checkpoints/0000-checkpoint.png",
        "cat/.DS_Store",
        "cat/Thumbs.db",
        "dog/@eaDir/thumbnail.jpg",
        "readme.txt",
        "loose.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image if path.suffix in (".png", ".jpg") else b"text")
    source = Folder(str(tmp_path))
    assert source.class_names() == ("cat", "dog")
    keys = [entry.key for entry in source.entries()]
    assert keys == ["cat/0000.png", "cat/0001.png", "dog/0002.png"]
    assert reasons(source) == {
        "hidden": 5,
        "not an image": 2,
        "outside the class folders": 1,
    }
    summary = source.listing.summarize()
    assert summary["seen"] == count_files(tmp_path) == 11
    assert summary["used"] + summary["skipped"] == summary["seen"]
    assert summary["reasons"]["outside the class folders"]["first"] == ["loose.png"]


def test_images_are_recognised_by_suffix_or_content(tmp_path):
    folder = tmp_path / "set/cat"
    folder.mkdir(parents=True)
    pixels = sets.tile(0)
    for name in ("a.jfif", "b.jpe", "c.JPG", "d", "e.dat", "f.jpg.orig"):
        (folder / name).write_bytes(sets.jpeg(pixels))
    for kind in ("PNG", "GIF", "BMP", "WEBP", "TIFF"):
        (folder / f"g{kind}").write_bytes(sets.encoded(pixels, kind))
    (folder / "notes").write_text("BMW is a brand, not a bitmap.")
    (folder / "empty").touch()
    source = Folder(str(tmp_path / "set"))
    assert len(source.entries()) == 11
    assert reasons(source) == {"not an image": 2}


def test_links_are_followed_and_dead_or_circular_ones_skipped(tmp_path):
    sets.folder(tmp_path / "set", {"cat": 1})
    store = sets.folder(tmp_path, {"store": 5}) / "store"
    cat = tmp_path / "set/cat"
    (cat / "more").symlink_to(store)
    (cat / "file.png").symlink_to(store / "0000.png")
    (cat / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    (cat / "around").symlink_to(tmp_path / "set")
    (cat / "self").symlink_to(cat / "self")
    (tmp_path / "set/dog").symlink_to(store)
    os.mkfifo(cat / "pipe.png")
    source = Folder(str(tmp_path / "set"))
    assert source.class_names() == ("cat", "dog")
    labels = [entry.labels[0] for entry in source.entries()]
    assert (labels.count("cat"), labels.count("dog")) == (7, 5)
    assert reasons(source) == {
        "link to a missing file": 2,
        "not a regular file": 1,
        "link to a folder around it": 1,
    }
    for entry in source.entries():
        assert source.read(entry).startswith(b"\x89PNG")


def test_folders_of_splits_are_no_classes(tmp_path):
    sets.folder(tmp_path / "train", {"a": 1})
    sets.folder(tmp_path / "val", {"a": 1})
    with pytest.raises(ValueError, match=r"has train, val .*folder:PATH/train"):
        Folder(str(tmp_path))


def test_a_folder_of_other_files_is_no_class(tmp_path):
    sets.folder(tmp_path, {"cat": 1})
    (tmp_path / "written/index").mkdir(parents=True)
    (tmp_path / "written/.DS_Store").touch()
    assert Folder(str(tmp_path)).listing.class_names == ("cat", "written")
    (tmp_path / "written/train-00000-of-00001.tfrecord").write_bytes(b"records")
    with pytest.raises(ValueError, match=r"/written has files but no image, for exam"):
        Folder(str(tmp_path)).entries()


def test_numbered_folders_are_sorted_as_numbers(tmp_path):
    sets.folder(tmp_path, {str(number): 1 for number in range(11)})
    assert Folder(str(tmp_path)).class_names()[10] == "10"


def test_names_that_are_not_utf8_raise_with_the_name(tmp_path):
    sets.folder(tmp_path, {"a": 1})
    (tmp_path / "a" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"a/caf\\xe9\.png' is not UTF-8. Rename"):
        Folder(str(tmp_path)).entries()
    (tmp_path / os.fsdecode(b"\xe9cole")).mkdir()
    with pytest.raises(ValueError, match=r"xe9cole' is not UTF-8. Rename"):
        Folder(str(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32"])
def test_a_csv_file_is_read_in_the_encoding_of_its_byte_order_mark(tmp_path, encoding):
    (tmp_path / "é.png").touch()
    text = "path,labels\né.png,Käfer\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.csv").write_text(mark + text, encoding=encoding)
    (entry,) = CsvFile(str(tmp_path / "list.csv")).entries()
    assert (entry.key, entry.labels) == ("é.png", ("Käfer",))


def test_a_csv_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "list.csv").write_text("path,labels\nx.png,Käfer\n", encoding="latin1")
    with pytest.raises(
        ValueError, match=r"list\.csv is not text in utf-8.*iconv -f latin1"
    ):
        CsvFile(str(tmp_path / "list.csv")).entries()


def csv_labels(tmp_path, labels):
    """A CSV file with an image for each of these labels."""
    lines = ["path,labels"]
    for number, label in enumerate(labels):
        (tmp_path / f"{number}.png").touch()
        lines.append(f"{number}.png,{label}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return CsvFile(str(tmp_path / "list.csv"))


def test_integer_labels_of_a_csv_file_are_class_indices(tmp_path):
    source = csv_labels(tmp_path, ["10", "0", "2"])
    assert source.class_names().index("10") == 10


def test_ambiguous_labels_of_a_csv_file_raise_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"list\.csv: the label '10' is a class"):
        csv_labels(tmp_path, ["10", "cat"]).class_names()


def test_missing_files_of_a_csv_file_are_skipped_and_keep_their_class(tmp_path):
    source = csv_labels(tmp_path, ["cat", "dog"])
    with open(source.path, "a") as file:
        file.write("\nnull\0byte.png,emu")
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").rename(tmp_path / "1")
    (tmp_path / "1.png").mkdir()
    assert source.entries() == []
    assert reasons(source) == {
        "cannot be read (No such file or directory)": 1,
        "not a regular file": 1,
        "cannot be read (embedded null byte)": 1,
    }
    assert source.class_names() == ("cat", "dog", "emu")


def test_a_csv_line_with_too_many_values_raises(tmp_path):
    source = csv_labels(tmp_path, ["cat,dog"])
    with pytest.raises(ValueError, match=r"line 2 has more values.*labels by ';'"):
        source.entries()


def test_classes_below_the_only_folder_are_named(tmp_path, caplog):
    sets.folder(tmp_path / "root/images", {"cat": 1, "dog": 1})
    assert len(Folder(str(tmp_path / "root")).entries()) == 2
    assert "one class, images. If its subfolders (cat, dog) are" in caplog.text
    caplog.clear()
    assert len(Folder(str(tmp_path / "root/images")).entries()) == 2
    assert not caplog.text
