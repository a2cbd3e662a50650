"""The writing benchmark copies and writes the same images, and compares."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from tests.data import sets
from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import writing


def test_writing_is_compared_with_copying_the_same_bytes(tmp_path, capsys):
    images = sets.folder(tmp_path / "images", {"a": 6, "b": 5})
    (images / "a/broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    out.mkdir()
    flags = ["--workers=1", "--num_shards=2", f"--folder={out}", "--rounds=1", "--json"]
    assert benchmark.main(["writing", f"--source=folder:{images}", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    sizes = [path.stat().st_size for path in images.rglob("*.*")]
    assert result["images"] == len(sizes) == 12
    assert result["mean_image_bytes"] == pytest.approx(sum(sizes) / 12)
    share = result["write_images_per_second"] / result["copy_images_per_second"]
    assert result["write_share_of_copy"] == pytest.approx(share)
    assert result["check_images_per_second_per_core"] > 0
    (table,) = writing.tables(result)
    assert table.rows[0][-1] == "1.00 (1.00 to 1.00)"
    assert not list(out.iterdir())  # Nothing is left behind.


def test_bad_flags_raise_by_name(tmp_path, capsys):
    assert benchmark.main(["writing", "--source=zip:x"]) == 1
    assert "`source` must be one of" in capsys.readouterr().err
    assert benchmark.main(["writing", "--source=digits", "--rounds=0"]) == 1
    assert "`--rounds` must be at least 1; received 0" in capsys.readouterr().err
