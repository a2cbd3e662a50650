"""The interface of the sets that `TrainData` and `EvalData` read from."""
# SPDX-License-Identifier: Apache-2.0

from typing import Protocol

from vit_scaling.data.examples import Features
from vit_scaling.data.record_index import RecordIndex


class Source(Protocol):
    """A set of records: `TFRecords` or `TFDS`."""

    @property
    def features(self) -> Features:
        """The keys of the records."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in index order, if known."""

    def index(self, *, on_bad_record: str = "stop") -> RecordIndex:
        """Return the positions of all records."""
