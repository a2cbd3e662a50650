"""What Beam's workers run gives what one process gives (Beam itself is not needed)."""
# SPDX-License-Identifier: Apache-2.0

import pickle

from tests.data import sets
from tests.data.deduplication_test import photos
from vit_scaling.data import beam, cleaning
from vit_scaling.data.deduplication import Thresholds


def test_workers_find_what_one_process_finds(tmp_path):
    images = [data for _, data in photos(10)]
    train = sets.shards(
        tmp_path / "train", [[sets.example(data, [0]) for data in images[3:]]]
    )
    records = [sets.example(data, [0]) for data in [images[5], b"", images[0]]]
    against = [sets.shards(tmp_path / "test", [records])]
    expected, _ = cleaning.find_removals(train, against, thresholds=Thresholds())
    assert [removal.record for removal in expected] == [2]
    hashed = [pair for n in range(3) for pair in beam._hash_evaluation((0, n), against)]
    assert [place for place, _ in hashed] == [(0, 0), (0, 2)]
    judge = pickle.loads(pickle.dumps(beam._index(hashed[::-1], Thresholds())))
    rows = list(beam._match((0, 7), pickle.loads(pickle.dumps(train)), judge))
    (tmp_path / "found-0").write_text("".join(f"{row!r}\n" for row in rows))
    found, unreadable = beam._read_found(str(tmp_path / "found"))
    assert (found, unreadable) == (expected, 0)
