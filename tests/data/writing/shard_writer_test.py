"""Images become records, or are left out with a reason."""
# SPDX-License-Identifier: Apache-2.0

from tests.data import sets
from tests.data.bad_records_test import bomb
from tests.data.writing.split_writer_test import examples, write
from vit_scaling.data.examples import feature_values
from vit_scaling.data.writing import shard_writer
from vit_scaling.data.writing.image_files import Folder


def test_unusable_images_are_left_out_with_a_reason(tmp_path):
    folder = sets.folder(tmp_path / "images", {"cat": 5, "dog": 9, "emu": 3})
    photo = sets.tile(0)
    bad = {
        "empty.png": (b"", "0 bytes"),
        "cut.png": ((folder / "dog/0005.png").read_bytes()[:300], "does not decode"),
        "text.jpg": (b"no image", "no known image format"),
        "bomb.png": (bomb(), "60000×60000 is more than 100000000 pixels"),
        "web.webp": (sets.encoded(photo, "WEBP"), "format WEBP cannot be read"),
    }
    for name, (data, _) in bad.items():
        (folder / "cat" / name).write_bytes(data)
    manifest = write(Folder(str(folder)), tmp_path / "out")
    assert manifest["records"] == 17
    reasons = {row["key"]: row["reason"] for row in manifest["left_out_named"]}
    assert manifest["left_out"] == len(bad)
    for name, (_, reason) in bad.items():
        assert reason in reasons[f"cat/{name}"]
    settings = shard_writer.Settings(reencode="jpeg")
    reencoded = write(Folder(str(folder)), tmp_path / "reencoded", settings=settings)
    assert reencoded["records"] == 18  # WebP can be read now.
    for example in examples(tmp_path / "reencoded").values():
        assert feature_values(example, "image/format") == [b"jpeg"]
