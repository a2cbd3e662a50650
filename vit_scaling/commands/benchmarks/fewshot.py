"""Time and memory of few-shot evaluation, compared with scikit-learn's Ridge."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import functools
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.commands.benchmarks import alternation, records
from vit_scaling.commands.benchmarks.records import Table

PACKAGES = ("numpy", "scikit-learn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: the size of the random set."""
    add = parser.add_argument
    add("--classes", type=int, default=1000, help="number of classes")
    add("--shots", type=int, default=10, help="training images per class")
    add("--width", type=int, default=1152, help="features per image")
    add("--seeds", type=int, default=3, help="number of seeds")
    add("--test_images", type=int, default=10_000, help="images to predict")
    add("--l2", type=float, default=1024.0, help="strength of the regularisation")
    add("--strengths", type=int, default=10, help="strengths of the measured sweep")
    alternation.add_timing_flags(add, rounds=3)
    add("--skip_peer", action="store_true", help="leave scikit-learn out")


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return seconds, largest memory, accuracies, and ratios to the peer's seconds.

    Both sides fit the same whitened features with the same bias feature to the same
    targets, seed by seed, and predict all test images. A sweep fits and predicts for
    several strengths, powers of 2 about `--l2`. Each program is run once to warm up,
    then in alternating rounds, and once more for its memory: what NumPy asks for
    beyond the set itself.
    """
    from vit_scaling.evaluation import fewshot

    alternation.check_positive(arguments, ("rounds", "strengths", "seeds"))
    data = _make_features(arguments)
    first = arguments.l2 / 2 ** (arguments.strengths // 2)
    sweep = [first * 2**number for number in range(arguments.strengths)]

    def predict(
        side: Callable[..., list[np.ndarray]], strengths: Sequence[float]
    ) -> list[np.ndarray]:
        chosen = [_choose_images(data, arguments, s) for s in range(arguments.seeds)]
        return [part for images in chosen for part in side(data, images, strengths)]

    programs = {
        "ours": functools.partial(predict, _predict, [arguments.l2]),
        "sweep": functools.partial(predict, _predict, sweep),
    }
    if not arguments.skip_peer:
        programs["sklearn_ridge"] = functools.partial(predict, _ridge, [arguments.l2])
    predicted = {name: work() for name, work in programs.items()}  # Warms them up.
    seconds = alternation.time_alternating(
        programs,
        rounds=arguments.rounds,
        warmup_rounds=0,
        clock=alternation.CLOCKS[arguments.clock],
    )
    accuracy = fewshot.Accuracy(
        tuple(float(np.mean(one == data.test_labels)) for one in predicted["ours"])
    )
    names = ("classes", "shots", "width", "seeds", "test_images", "strengths", "clock")
    result = {
        **{name: vars(arguments)[name] for name in names},
        "seconds": {
            name: alternation.spread(values) for name, values in seconds.items()
        },
        "memory_mib": {
            name: _measure_memory(work) / 2**20 for name, work in programs.items()
        },
        "accuracy": accuracy.as_dict(),
        "sweep_over_one": alternation.ratio_spread(seconds["sweep"], seconds["ours"]),
    }
    if not arguments.skip_peer:
        pairs = zip(predicted["ours"], predicted["sklearn_ridge"], strict=True)
        result["same_predictions"] = float(np.mean([np.mean(a == b) for a, b in pairs]))
        result["seconds_over_sklearn"] = alternation.ratio_spread(
            seconds["ours"], seconds["sklearn_ridge"]
        )
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return seconds and memory of each program, next to the peer's."""
    programs = {
        "ours": "this package",
        "sweep": f"this package, {result['strengths']} strengths",
        "sklearn_ridge": "scikit-learn's Ridge",
    }
    # A sweep has no peer: scikit-learn fits one strength.
    over = {"ours": result.get("seconds_over_sklearn"), "sklearn_ridge": 1.0}
    rows = [
        {
            "program": programs[name],
            **seconds,
            "memory": result["memory_mib"][name],
            "over": over.get(name),
        }
        for name, seconds in result["seconds"].items()
    ]
    columns = {
        "program": "regression",
        **records.SECONDS,
        "memory": "memory beyond the set, MiB",
        "over": "time over scikit-learn's",
    }
    topic = "Evaluation and fine-tuning"
    title = "Few-shot evaluation next to scikit-learn"
    return [records.make_table("fewshot_speed", topic, title, columns, rows)]


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


def _predict(
    data: Any, chosen: np.ndarray, strengths: Sequence[float]
) -> list[np.ndarray]:
    from vit_scaling.evaluation import regression

    fitted = regression.normal_equations(
        data.train_features[chosen], data.train_labels[chosen], data.classes
    )
    return [fitted.predict(data.test_features, strength) for strength in strengths]


def _ridge(
    data: Any, chosen: np.ndarray, strengths: Sequence[float]
) -> list[np.ndarray]:
    from sklearn.linear_model import Ridge

    train = data.train_features[chosen].astype(np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-5

    def prepared(x: np.ndarray) -> np.ndarray:
        return np.column_stack([(x - mean) / deviation, np.full(len(x), 100.0)])

    targets = np.full((len(chosen), data.classes), -1.0)
    targets[np.arange(len(chosen)), data.train_labels[chosen]] = 1.0
    x, test = prepared(train), prepared(data.test_features)
    ridges = (Ridge(alpha=value, fit_intercept=False) for value in strengths)
    return [np.argmax(r.fit(x, targets).predict(test), axis=1) for r in ridges]


def _measure_memory(work: Callable[[], Any]) -> int:
    """Return the most bytes that `work` holds; apart from the clock, which it slows."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
