"""Search 64-bit hashes within a Hamming distance (multi-index hashing)."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

_BANDS, _BAND_BITS = 4, 16
# Unrelated hashes differ in half of their bits; no more than this fraction may differ.
MAX_DIFFERING_FRACTION = 0.3


class HashIndex:
    """Hashes to search, each with the mask of its bits that count.

    Two hashes at most 7 bits apart have one of four bands of 16 bits in common but for
    one bit, so all such pairs are found; of pairs further apart, most are.

    Args:
        hashes: uint64 (hashes,).
        stable: Masks of the bits that count, uint64 (hashes,).

    References:
        Norouzi et al. 2012, "Fast search in Hamming space with multi-index hashing".
    """

    def __init__(self, hashes: np.ndarray, stable: np.ndarray) -> None:
        # Bits that do not count are 0 here and in queries. Otherwise noise would put
        # two copies of a smooth image into different bands.
        self._hashes, self._stable = hashes & stable, stable
        self._order, self._starts = [], []
        for band in range(_BANDS):
            values = _band_values(self._hashes, band)
            order = np.argsort(values, kind="stable").astype(np.int64)
            self._order.append(order)
            self._starts.append(
                np.searchsorted(values[order], np.arange(2**_BAND_BITS + 1))
            )
        flips = [0, *(1 << bit for bit in range(_BAND_BITS))]
        self._flips = np.array(flips, np.int64)

    def search(
        self, queries: np.ndarray, stable: np.ndarray, distance: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find all pairs of a query and a hash within a distance; some are repeated.

        Args:
            queries: uint64 (queries,).
            stable: Masks of the queries' bits that count, uint64 (queries,).
            distance: In bits; also limited to 0.3 of the bits that count in both.

        Returns:
            For each pair the query's row, the hash's row, and the distance.
        """
        queries = queries & stable
        query_rows, hash_rows = [], []
        for band in range(_BANDS):
            values = _band_values(queries, band)[:, None] ^ self._flips  # (queries, 17)
            starts, ends = self._starts[band][values], self._starts[band][values + 1]
            counts = (ends - starts).ravel()
            first = np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
            hash_rows.append(self._order[band][first + np.arange(len(first))])
            numbers = np.arange(values.size) // len(self._flips)
            query_rows.append(np.repeat(numbers, counts))
        query_row, hash_row = np.concatenate(query_rows), np.concatenate(hash_rows)
        both = stable[query_row] & self._stable[hash_row]
        differing = (queries[query_row] ^ self._hashes[hash_row]) & both
        distances = np.bitwise_count(differing)
        limits = MAX_DIFFERING_FRACTION * np.bitwise_count(both)
        keep = distances <= np.minimum(distance, limits)
        return query_row[keep], hash_row[keep], distances[keep]


def _band_values(hashes: np.ndarray, band: int) -> np.ndarray:
    shifted = hashes >> np.uint64(_BAND_BITS * (_BANDS - 1 - band))
    return (shifted & np.uint64(2**_BAND_BITS - 1)).astype(np.int64)
