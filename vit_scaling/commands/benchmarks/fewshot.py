"""Time and memory of few-shot evaluation, compared with scikit-learn's Ridge."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

TURNS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: the size of the random set."""
    add = parser.add_argument
    add("--classes", type=int, default=1000, help="number of classes")
    add("--shots", type=int, default=10, help="training images per class")
    add("--width", type=int, default=1152, help="features per image")
    add("--seeds", type=int, default=3, help="number of seeds")
    add("--test_images", type=int, default=10_000, help="images to predict")
    add("--l2", type=float, default=1024.0, help="strength of the regularisation")
    add("--skip_peer", action="store_true", help="leave scikit-learn out")


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return both sides' seconds, largest memory and accuracies, and their ratio.

    Both fit the same whitened features with the same bias feature to the same targets,
    seed by seed, and predict all test images. Each is run once to warm up, then three
    times in turns, of which the median counts, and once more for its memory: what NumPy
    asks for beyond the set itself.
    """
    from vit_scaling.evaluation import fewshot

    data = _make_features(arguments)
    seeds = range(arguments.seeds)

    def ours() -> list[np.ndarray]:
        return [
            _predict(data, _choose_images(data, arguments, s), arguments.l2)
            for s in seeds
        ]

    def peer() -> list[np.ndarray]:
        return [
            _ridge(data, _choose_images(data, arguments, s), arguments.l2)
            for s in seeds
        ]

    sides = {"ours": ours} if arguments.skip_peer else {"ours": ours, "peer": peer}
    predicted = {name: work() for name, work in sides.items()}  # Warms both up.
    seconds = _measure_seconds(sides)
    memory = {name: _measure_memory(work) for name, work in sides.items()}
    accuracy = fewshot.Accuracy(
        tuple(float(np.mean(one == data.test_labels)) for one in predicted["ours"])
    )
    result = {
        **{name: vars(arguments)[name] for name in ("classes", "shots", "width")},
        "seeds": arguments.seeds,
        "test_images": arguments.test_images,
        "seconds": seconds["ours"],
        "memory_mib": memory["ours"] / 2**20,
        "accuracy": accuracy.as_dict(),
    }
    if not arguments.skip_peer:
        pairs = zip(predicted["ours"], predicted["peer"], strict=True)
        result["sklearn_ridge"] = {
            "seconds": seconds["peer"],
            "memory_mib": memory["peer"] / 2**20,
            "same_predictions": float(np.mean([np.mean(a == b) for a, b in pairs])),
        }
        result["seconds_over_sklearn"] = seconds["ours"] / seconds["peer"]
    return result


def _make_features(arguments: argparse.Namespace) -> Any:
    """Return classes of overlapping normal features, float32, with twice the shots."""
    from vit_scaling.evaluation.fewshot import FeatureSet

    generator = np.random.default_rng(0)
    centres = generator.normal(size=(arguments.classes, arguments.width))
    noise = np.sqrt(arguments.width) / 7  # Hard, but not hopeless, at any width.

    def part(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.permutation(np.arange(number) % arguments.classes)
        spread = generator.normal(size=(number, arguments.width)) * noise
        return (centres[labels] + spread).astype(np.float32), labels

    train = part(2 * arguments.shots * arguments.classes)
    test = part(max(arguments.test_images, arguments.classes))
    return FeatureSet(*train, *test)


def _choose_images(data: Any, arguments: argparse.Namespace, seed: int) -> np.ndarray:
    from vit_scaling.evaluation import fewshot

    order = fewshot.permute_classes(data.train_labels, data.classes, seed)
    return np.concatenate([indices[: arguments.shots] for indices in order])


def _predict(data: Any, chosen: np.ndarray, strength: float) -> np.ndarray:
    from vit_scaling.evaluation import regression

    fitted = regression.decompose(
        data.train_features[chosen], data.train_labels[chosen], data.classes
    )
    return fitted.predict(data.test_features, strength)


def _ridge(data: Any, chosen: np.ndarray, strength: float) -> np.ndarray:
    from sklearn.linear_model import Ridge

    train = data.train_features[chosen].astype(np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-5

    def prepared(x: np.ndarray) -> np.ndarray:
        return np.column_stack([(x - mean) / deviation, np.full(len(x), 100.0)])

    targets = np.full((len(chosen), data.classes), -1.0)
    targets[np.arange(len(chosen)), data.train_labels[chosen]] = 1.0
    ridge = Ridge(alpha=strength, fit_intercept=False)
    ridge.fit(prepared(train), targets)
    return np.argmax(ridge.predict(prepared(data.test_features)), axis=1)


def _measure_seconds(sides: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return each side's median seconds, the sides taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _measure_memory(work: Callable[[], Any]) -> int:
    """Return the most bytes that `work` holds; apart from the clock, which it slows."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
