"""Images in folders, listed in a CSV file or packed in tar files."""
# SPDX-License-Identifier: Apache-2.0

import io
import tarfile

import pytest

from tests.data import sets
from vit_scaling.data.writing.image_files import CsvFile, Folder, TarFiles


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return str(path)


def test_a_csv_line_may_have_any_number_of_labels(tmp_path):
    (tmp_path / "x.png").write_bytes(b"123")
    listing = tmp_path / "list.csv"
    listing.write_text('path,labels\nx.png,cat; dog ;cat\n"a,b.png",\n/abs.png,emu\n')
    source = CsvFile(str(listing))
    assert source.class_names() == ("cat", "dog", "emu")
    result = source.entries()
    assert [entry.labels for entry in result] == [("cat", "dog"), (), ("emu",)]
    assert [entry.key for entry in result] == ["x.png", "a,b.png", "/abs.png"]
    assert result[2].place == "/abs.png"
    assert [entry.size_bytes for entry in result] == [3, 0, 0]
    assert source.read(result[0]) == b"123"


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_column(tmp_path):
    listing = tmp_path / "list.csv"
    listing.write_text("path,labels\nx.png,cat\n", encoding="utf-8-sig")
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


def test_a_members_class_is_its_folder_or_the_tars_name(tmp_path):
    tar(tmp_path / "n01.tar", {"a.JPEG": b"one", "notes.txt": b"-"})
    tar(tmp_path / "mixed.tar", {"./x/cat/b.png": b"two", "dog/c.png": b"three"})
    source = TarFiles(str(tmp_path / "*.tar"))
    result = {entry.key: entry for entry in source.entries()}
    assert {key: entry.labels for key, entry in result.items()} == {
        "mixed/x/cat/b.png": ("cat",),
        "mixed/dog/c.png": ("dog",),
        "n01/a.JPEG": ("n01",),
    }
    assert source.read(result["mixed/dog/c.png"]) == b"three"
    assert source.class_names() == ("cat", "dog", "n01")


def test_compressed_and_missing_tars_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="matches no file"):
        TarFiles(str(tmp_path / "*.tar")).entries()
    (tmp_path / "x.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    with pytest.raises(ValueError, match="must be an uncompressed tar file"):
        TarFiles(str(tmp_path / "x.tar")).entries()


def test_a_tar_cut_short_names_the_member(tmp_path):
    path = tar(tmp_path / "x.tar", {"a/b.png": b"x" * 2000})
    source = TarFiles(path)
    (entry,) = source.entries()
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(OSError, match=r"ends inside x/a/b\.png"):
        source.read(entry)


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
