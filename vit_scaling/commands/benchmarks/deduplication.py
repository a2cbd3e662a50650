"""Compare the search for near-duplicates with perceptual hashes on altered copies."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_scaling.checks import check_at_least
from vit_scaling.commands.benchmarks import records
from vit_scaling.commands.benchmarks.records import Table

PACKAGES = (*records.PACKAGES, "ImageHash", "imagededup")
OURS = "this package"

# Candidates for thresholds. `likeness` is the default of the search and its neighbours.
_DISTANCES = range(0, 25)
_MIN_PRECISION = 0.99
_BORDERS = ("border", "caption")  # Outside the goals' list of alterations.


class Query(NamedTuple):
    """An image that is searched for.

    Attributes:
        encoded: The image.
        original: Name of the evaluation image that it is a copy of; None: of none.
        kind: Of the alteration; "" if it is none.
        key: Its own name.
    """

    encoded: bytes
    original: str | None
    kind: str
    key: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark.py deduplication`."""
    add = parser.add_argument
    add(
        "--folder",
        metavar="FOLDER",
        required=True,
        help="distinct images, half of them evaluation",
    )
    add("--copies", type=int, default=1000, help="number of planted copies")
    add("--repeats", metavar="FILE", help="CSV of known repeats: two file names a line")
    add("--seed", type=int, default=0, help="of the halves and alterations")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plant copies, search with each method, and return recall and precision.

    Half of the queries choose the hashes' thresholds, the most recall at a precision of
    0.99; all results are of the other half. The search has its default threshold.
    """
    from vit_scaling.data.deduplication import planted_copies

    check_at_least(1, **{"--copies": args.copies})
    images = [
        (path.rsplit("/", 1)[-1], encoded)
        for path, encoded in planted_copies.read_images(args.folder)
    ]
    generator = np.random.default_rng(args.seed)
    order = generator.permutation(len(images))
    evaluation = [images[i] for i in order[::2]]
    queries = [Query(images[i][1], None, "", images[i][0]) for i in order[1::2]]
    kinds = [kind for kind in planted_copies.ALTERATIONS if kind not in _BORDERS]
    for number in range(args.copies):
        key, encoded = evaluation[number // len(kinds) % len(evaluation)]
        kind = kinds[number % len(kinds)]
        copy = planted_copies.alter_image(encoded, kind, generator)
        queries.append(Query(copy, key, kind, key))
    known = _read_repeats(args.repeats)
    choosing = generator.random(len(queries)) < 0.5
    methods = {OURS: _search, **_hash_methods()}
    return {
        "images": len(images),
        "evaluation": len(evaluation),
        "copies": args.copies,
        "methods": {
            name: _measure(method, evaluation, queries, choosing, known)
            for name, method in methods.items()
        },
    }


# From (evaluation, queries) to, for each query, the nearest image and its distance.
Found = Sequence[tuple[str, float]]
Method = Callable[[Sequence[tuple[str, bytes]], Sequence[Query]], Found]


def _search(evaluation: Sequence[tuple[str, bytes]], queries: Sequence[Query]) -> Found:
    """Return 0 for near-duplicates at the default thresholds, or else infinity."""
    from vit_scaling.data.deduplication import fingerprints
    from vit_scaling.data.deduplication.matching import NearDuplicateIndex, Thresholds

    index = NearDuplicateIndex(
        [key for key, _ in evaluation],
        [fingerprints.fingerprint_evaluation_image(data) for _, data in evaluation],
        Thresholds(),
    )
    matches = (
        index.find(fingerprints.fingerprint_training_image(query.encoded))
        for query in queries
    )
    return [(m.key, 1 - m.likeness) if m else ("", float("inf")) for m in matches]


def _hash_methods() -> dict[str, Method]:
    """Return the searches by other hashes; raise ImportError if one is missing."""
    try:
        import imagehash
        from imagededup.methods import PHash
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed: pip install imagehash imagededup"
        ) from None
    from PIL import Image

    def bits_of(function: Callable[[Any], Any]) -> Callable[[bytes], np.ndarray]:
        return lambda data: function(Image.open(io.BytesIO(data))).hash.ravel()

    def imagededup_bits(data: bytes) -> np.ndarray:
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        text = PHash().encode_image(image_array=image)
        return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))

    functions = {
        "imagehash.phash": bits_of(imagehash.phash),
        "imagehash.dhash": bits_of(imagehash.dhash),
        "imagededup.PHash": imagededup_bits,
    }

    def method_of(make: Callable[[bytes], np.ndarray]) -> Method:
        def search(
            evaluation: Sequence[tuple[str, bytes]], queries: Sequence[Query]
        ) -> Found:
            stored = np.stack([make(data) for _, data in evaluation])
            found = []
            for query in queries:
                distances = (stored != make(query.encoded)).sum(1)
                nearest = int(distances.argmin())
                found.append((evaluation[nearest][0], float(distances[nearest])))
            return found

        return search

    return {name: method_of(make) for name, make in functions.items()}


def _measure(
    method: Method,
    evaluation: Sequence[tuple[str, bytes]],
    queries: Sequence[Query],
    choosing: np.ndarray,
    known: set[frozenset[str]],
) -> dict[str, Any]:
    begin = time.process_time()
    found = method(evaluation, queries)
    seconds = time.process_time() - begin
    rows = list(zip(queries, found, strict=True))
    tried = [row for row, chosen in zip(rows, choosing, strict=True) if chosen]
    tested = [row for row, chosen in zip(rows, choosing, strict=True) if not chosen]
    threshold = 1.0  # The search has applied its own.
    if method is not _search:
        scores = {limit: _score(tried, limit, known) for limit in _DISTANCES}
        precise = [n for n in scores if scores[n]["precision"] >= _MIN_PRECISION]
        threshold = max(precise, key=lambda n: scores[n]["recall"], default=0)
    return {
        "threshold": threshold,
        **_score(tested, threshold, known),
        "cpu_seconds_per_1000_images": 1000
        * seconds
        / (len(queries) + len(evaluation)),
    }


def _score(
    rows: Sequence[tuple[Query, tuple[str, float]]],
    threshold: float,
    known: set[frozenset[str]],
) -> dict[str, Any]:
    """Return recall of the copies, overall and by alteration, and precision.

    Removed images that are no copies count as wrong unless the pair is a known repeat.
    """
    copies: dict[str, list[bool]] = {}
    wrong, right = [], 0
    for query, (key, distance) in rows:
        is_found = distance <= threshold
        if query.original is not None:
            copies.setdefault(query.kind, []).append(is_found)
            right += is_found
        elif is_found and frozenset((query.key, key)) not in known:
            wrong.append([query.key, key, round(distance, 4)])
    by_kind = {kind: float(np.mean(found)) for kind, found in copies.items()}
    every = [found for values in copies.values() for found in values]
    return {
        "recall": float(np.mean(every)) if every else float("nan"),
        "precision": right / max(1, right + len(wrong)),
        "copies": len(every),
        "others": len(rows) - len(every),
        "by_alteration": by_kind,
        "wrong": wrong,
    }


def _read_repeats(path: str | None) -> set[frozenset[str]]:
    if path is None:
        return set()
    with open(path, newline="", encoding="utf-8") as file:
        return {frozenset(row[:2]) for row in csv.reader(file)}


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return recall by alteration, precision and time: a column for each method."""
    methods = result["methods"]
    names = {"name": "", **{name: name for name in methods}}
    columns = {
        name: {
            **{kind: f"{recall:.3f}" for kind, recall in one["by_alteration"].items()},
            **{score: f"{one[score]:.3f}" for score in ("recall", "precision")},
            "threshold": "default" if name == OURS else f"{one['threshold']:.0f} bits",
            "processor seconds for 1,000 images": one["cpu_seconds_per_1000_images"],
        }
        for name, one in methods.items()
    }
    rows = [
        {"name": label, **{name: columns[name][label] for name in methods}}
        for label in columns[OURS]
    ]
    title = "Near-duplicates found, next to perceptual hashes"
    return [records.make_table("deduplication_methods", "Data", title, names, rows)]
