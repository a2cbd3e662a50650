"""Search for near-duplicates and copy shards in this process."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.internal_duplicates import (
    BucketEntry,
    collect_candidates,
)
from vit_scaling.data.deduplication.search import (
    Place,
    Removal,
    Search,
    SearchResult,
    Unreadable,
)
from vit_scaling.data.deduplication.shard_copying import (
    CopiedShard,
    ShardCopy,
    copy_shard,
)

_PROGRESS_EVERY = 1000


@dataclasses.dataclass(frozen=True)
class LocalDriver:
    """Runs everything in this process; a `cleaning.Driver`.

    Args:
        progress: Called with the number of examined and of all training records.
    """

    progress: Callable[[int, int], None] | None = None

    def run_search(self, search: Search) -> SearchResult:
        """Find the training records to remove."""
        images, unreadable = _fingerprint_evaluation_sets(search)
        index = search.build_index(images)
        outcomes: list[Removal | Unreadable] = [*unreadable]
        entries: list[BucketEntry] = []
        train = search.train.index()
        for record, data in train.read_records():
            for outcome in search.examine_training_record(record, data, index):
                if isinstance(outcome, BucketEntry):
                    entries.append(outcome)
                else:
                    outcomes.append(outcome)
            if self.progress and (record + 1) % _PROGRESS_EVERY == 0:
                self.progress(record + 1, train.num_records)
        candidates = collect_candidates(entries, search.thresholds)
        for record, found in candidates.items():
            outcomes += search.confirm_internal_duplicate(record, found)
        return search.collect_outcomes(outcomes)

    def copy_shards(self, tasks: Sequence[ShardCopy]) -> Iterator[CopiedShard]:
        """Copy shards one after the other."""
        return map(copy_shard, tasks)


def _fingerprint_evaluation_sets(
    search: Search,
) -> tuple[list[tuple[Place, Fingerprint]], list[Unreadable]]:
    images: list[tuple[Place, Fingerprint]] = []
    unreadable: list[Unreadable] = []
    for number, source in enumerate(search.against):
        before = len(unreadable)
        for record, data in source.index().read_records():
            image = search.fingerprint_evaluation_record((number, record), data)
            if isinstance(image, Unreadable):
                unreadable.append(image)
            else:
                images.append(image)
        # Now rather than at the end: the search of the training set may take hours.
        search.check_readable(number, len(unreadable) - before)
    return images, unreadable
