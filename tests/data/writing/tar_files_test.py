"""Images packed in tar files."""
# SPDX-License-Identifier: Apache-2.0

import io
import tarfile

import pytest

from vit_scaling.data.writing.tar_files import TarFiles


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return str(path)


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


def reasons(source):
    """The number of skipped files by reason."""
    return {reason: files.count for reason, files in source.listing.skipped.items()}


def indices(source):
    """The class index of each image."""
    names = source.class_names()
    return {e.key: [names.index(label) for label in e.labels] for e in source.entries()}


def test_hidden_members_are_skipped_and_the_totals_add_up(tmp_path):
    members = dict.fromkeys(
        ("./cat/a.jpg", "__MACOSX/cat/._a.jpg", "cat/.trash/a.jpg", "cat/b.xml"), b"-"
    )
    source = TarFiles(tar(tmp_path / "x.tar", members))
    assert [entry.key for entry in source.entries()] == ["x/cat/a.jpg"]
    assert reasons(source) == {"hidden": 2, "not an image": 1}
    assert source.listing.summarize()["seen"] == len(members)


def test_links_in_a_tar_are_images_of_their_own_folder(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as file:

        def add(name, kind=tarfile.REGTYPE, target="", data=b""):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, len(data)
            file.addfile(info, io.BytesIO(data))

        add("cat/a.jpg", data=b"cat")
        add("dog/b.jpg", tarfile.LNKTYPE, "cat/a.jpg")
        add("dog/c.jpg", tarfile.SYMTYPE, "b.jpg")
        add("dog/d.jpg", tarfile.SYMTYPE, "../cat/gone.jpg")
        add("dog/e.jpg", tarfile.SYMTYPE, "e.jpg")
        add("dog/pipe.jpg", tarfile.FIFOTYPE)
        add("cat/a.jpg", tarfile.LNKTYPE, "cat/a.jpg")  # As of `tar cf x.tar a a`.
        add("cat/z.jpg", data=b"old")
        add("cat/z.jpg", data=b"newer")
    source = TarFiles(str(tmp_path / "x.tar"))
    assert {e.key: (e.labels, source.read(e)) for e in source.entries()} == {
        "x/cat/a.jpg": (("cat",), b"cat"),
        "x/dog/b.jpg": (("dog",), b"cat"),
        "x/dog/c.jpg": (("dog",), b"cat"),
        "x/cat/z.jpg": (("cat",), b"newer"),
    }
    assert reasons(source) == {
        "repeated; the last one is used": 2,
        "link to a missing file": 2,
        "not a regular file": 1,
    }
    assert source.listing.summarize()["seen"] == 9


def test_webdataset_shards_have_the_labels_of_their_cls_files(tmp_path):
    for shard, numbers in enumerate([(0, 2), (10,)]):
        members = {}
        for number in numbers:
            members[f"{number:06d}.jpg"] = b"image"
            members[f"{number:06d}.cls"] = f"{number}\n".encode()
            members[f"{number:06d}.json"] = b'{"width": 3}'
        tar(tmp_path / f"train-{shard:06d}.tar", members)
    source = TarFiles(str(tmp_path / "*.tar"))
    assert len(source.class_names()) == 11
    assert indices(source) == {
        "train-000000/000000.jpg": [0],
        "train-000000/000002.jpg": [2],
        "train-000001/000010.jpg": [10],
    }
    assert reasons(source) == {"text or label file": 6}


def test_webdataset_labels_may_be_json_or_text(tmp_path):
    path = tar(
        tmp_path / "x.tar",
        {
            "s/0.json": b'{"label": "dog", "width": 5}',
            "s/0.txt": b"A caption of the dog",
            "s/0.jpg": b"",
            "s/1.jpg": b"",
            "s/1.json": b'{"labels": ["cat", "pet"]}',
            "s/2.jpg": b"",
            "s/2.txt": b"emu\n",
            "s/3.jpg": b"",
        },
    )
    source = TarFiles(path)
    assert {e.key: e.labels for e in source.entries()} == {
        "x/s/0.jpg": ("dog",),
        "x/s/1.jpg": ("cat", "pet"),
        "x/s/2.jpg": ("emu",),
    }
    assert source.class_names() == ("cat", "dog", "emu", "pet")
    assert reasons(source)["no label file (.cls, .json or .txt)"] == 1


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("json", b"{}", "the .json file of a.jpg has no label"),
        ("json", b'{"label": 0.5}', r"a\.json: a label must be a text or integer"),
        ("json", b'{"label": true}', r"a\.json: a label must be a text or integer"),
        ("json", b"{", r"x\.tar, a\.json: Expecting"),
        ("cls", b"", "the .cls file of a.jpg must have a label"),
        ("cls", b"\xe9", r"x\.tar, a\.cls: 'utf-8' codec"),
        ("txt", b"two\nlines", "the .txt file of a.jpg must have a label"),
    ],
)
def test_a_wrong_label_file_is_named(tmp_path, suffix, content, message):
    path = tar(tmp_path / "x.tar", {"a.jpg": b"", f"a.{suffix}": content})
    with pytest.raises(ValueError, match=message):
        TarFiles(path).entries()


def test_a_few_label_files_among_folders_of_images_raise(tmp_path):
    names = ["cat/0.jpg", "cat/0.txt", "cat/1.jpg", "dog/2.jpg"]
    path = tar(tmp_path / "x.tar", dict.fromkeys(names, b"notes"))
    with pytest.raises(ValueError, match=r"1 images have a label file .* 2 have none"):
        TarFiles(path).entries()


def test_captions_are_no_classes(tmp_path):
    members = {}
    for number in range(120):
        members[f"{number}.jpg"] = b""
        members[f"{number}.txt"] = f"A photo of thing {number}".encode()
    path = tar(tmp_path / "x.tar", members)
    with pytest.raises(ValueError, match=r"120 different labels.* look like captions"):
        TarFiles(path).entries()


def test_shards_and_splits_are_no_classes(tmp_path):
    path = tar(tmp_path / "train-000001.tar", {"a.jpg": b""})
    with pytest.raises(ValueError, match="'train-000001' names a shard"):
        TarFiles(path).entries()
    path = tar(tmp_path / "val.tar", {"a.jpg": b""})
    with pytest.raises(ValueError, match="has val in place of classes"):
        TarFiles(path).entries()


def test_data_after_the_end_of_a_tar_raises(tmp_path):
    first = tar(tmp_path / "a.tar", {"cat/a.jpg": b"a"})
    second = tar(tmp_path / "b.tar", {"cat/b.jpg": b"b"})
    with open(first, "ab") as file, open(second, "rb") as more:
        file.write(more.read())
    with pytest.raises(ValueError, match=r"a\.tar must be one undamaged tar file"):
        TarFiles(first).entries()


def test_a_tar_damaged_between_members_raises(tmp_path):
    path = tar(tmp_path / "a.tar", {f"cat/{n}.jpg": b"x" * 512 for n in range(9)})
    with open(path, "r+b") as file:
        file.seek(4 * 1024)
        file.write(b"\xff" * 512)  # The fifth member's header.
    with pytest.raises(ValueError, match="received data after its end at byte 4096"):
        TarFiles(path).entries()


def test_names_in_a_tar_that_are_not_utf8_raise_with_the_name(tmp_path):
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin1"
    ) as file:
        file.addfile(tarfile.TarInfo("cat/caf\xe9.jpg"))
    with pytest.raises(ValueError, match=r"caf\\xe9\.jpg' is not UTF-8"):
        TarFiles(str(tmp_path / "x.tar")).entries()
