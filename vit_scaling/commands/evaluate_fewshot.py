"""Few-shot accuracy of a model or of features in a file: flags -> accuracies."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli
from vit_scaling.run_record import RunRecord

MODELS = ("features", "model_dir", "saved_model", "application", "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(
        "Few-shot linear evaluation in closed form (facts of §2, App. A)."
    )
    add = parser.add_argument_group(
        "features (of a run, an export, weights or a file)"
    ).add_argument
    add("--features", help=".npz file of train_features, train_labels, test_…")
    add("--model_dir", help="folder of a training run")
    add("--saved_model", help="folder that `vit-scaling export` wrote")
    add("--application", help="name such as ViTS16")
    add("--weights", help="file of the application's weights (default: random)")
    add("--model", help="in place of an application: any file or name of weights")
    add("--image_size", type=int, help="pixels (default: the weights', or 224)")
    cli.add_averages_flag(add)
    add("--layer", help="layer whose output the features are (default: pre_logits)")
    add = parser.add_argument_group("images").add_argument
    add("--train", help="TFRecords to take shots from, or a TFDS split with --tfds")
    add("--test", help="TFRecords to test on, or a TFDS split with --tfds")
    add("--tfds", help="name or folder of a prepared TFDS set")
    add("--data_dir", help="TFDS' data folder")
    add("--classes", type=int, help="number of classes (default: the set's names)")
    add("--batch_size", type=int, help="images at a time (default: 64)")
    add("--save_features", help=".npz file to keep the features in")
    add = parser.add_argument_group("evaluation").add_argument
    add("--shots", type=int, nargs="+", default=[1, 5, 10, 25], help="per class")
    add(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the choice of shots"
    )
    add(
        "--l2", type=float, nargs="+", default=[1024.0], help="strengths; first is main"
    )
    add("--linear_probe", action="store_true", help="also L-BFGS on the training part")
    add("--neighbours", action="store_true", help="also k-NN on the training part")
    return cli.run(parser, argv, _evaluate, _show)


def _evaluate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    import numpy as np

    from vit_scaling.evaluation import fewshot, probes

    given = [name for name in MODELS if getattr(arguments, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"Give one of {', '.join('--' + name for name in MODELS)}; received "
            f"{', '.join('--' + name for name in given) or 'none'}."
        )
    _check_flags(arguments, given[0])
    if arguments.save_features:
        fewshot.check_parent_folder(arguments.save_features)
    if arguments.features is not None:
        data = fewshot.FeatureSet.from_file(arguments.features)
    else:
        data = _extract(arguments)
    if arguments.save_features:
        data.to_file(arguments.save_features)
    found = fewshot.compute_accuracies(
        data, shots=arguments.shots, seeds=arguments.seeds, strengths=arguments.l2
    )
    rows = {
        strength: {number: accuracy.as_dict() for number, accuracy in by_shots.items()}
        for strength, by_shots in found.items()
    }
    result = {
        "classes": data.classes,
        "width": data.train_features.shape[1],
        "train_images": len(data.train_labels),
        "test_images": len(data.test_labels),
        "seeds": arguments.seeds,
        "l2": arguments.l2[0],
        "shots": rows[arguments.l2[0]],
    }
    if len(arguments.l2) > 1:
        result["sweep"] = [{"l2": key, "shots": value} for key, value in rows.items()]
    if arguments.linear_probe:
        predicted, converged = probes.linear_probe(data)
        right = np.mean(predicted == data.test_labels)
        result["linear_probe"] = {"accuracy": right, "converged": converged}
    if arguments.neighbours:
        right = np.mean(probes.nearest_neighbours(data) == data.test_labels)
        result["neighbours"] = {"accuracy": right}
    return result


def _check_flags(arguments: argparse.Namespace, model: str) -> None:
    """Raise if a flag has no effect with this kind of model."""
    images = dict.fromkeys(
        ("train", "test", "tfds", "data_dir", "classes", "batch_size"), MODELS[1:]
    )
    uses = {
        **images,
        "layer": ("model_dir", "application", "model"),
        "averages": ("model_dir",),
        "weights": ("application",),
        "image_size": ("application", "model"),
    }
    for name, models in uses.items():
        if getattr(arguments, name) not in (None, False) and model not in models:
            raise ValueError(
                f"--{name} has no effect with --{model}: it goes with "
                f"{' or '.join('--' + kind for kind in models)}."
            )
    if arguments.data_dir is not None and arguments.tfds is None:
        raise ValueError("--data_dir has no effect without --tfds: it is TFDS' folder.")


def _extract(arguments: argparse.Namespace) -> Any:
    """Return the features that a model gives for the set of the flags."""
    import tensorflow as tf

    from vit_scaling.data.pipeline import EvalData
    from vit_scaling.data.tfds import TFDS
    from vit_scaling.data.tfrecords import TFRecords
    from vit_scaling.evaluation import images

    if arguments.train is None or arguments.test is None:
        raise ValueError(
            "A model needs images: give --train and --test, patterns of TFRecords, or "
            "with --tfds=NAME its splits."
        )
    compute, preparation = _model(arguments)
    parts = []
    for pattern in (arguments.train, arguments.test):
        source = (
            TFDS(arguments.tfds, pattern, data_dir=arguments.data_dir)
            if arguments.tfds
            else TFRecords(pattern)
        )
        classes = arguments.classes or len(source.class_names or ())
        if not classes:
            raise ValueError(
                f"No classes.txt in the folder of {pattern}. Give --classes."
            )
        parts.append(
            EvalData(
                source,
                classes=classes,
                **preparation,
            )
        )
    extract = images.make_feature_pass(
        compute, tf.distribute.get_strategy(), batch_size=arguments.batch_size or 64
    )
    return images.make_feature_set(extract, *parts)


def _model(
    arguments: argparse.Namespace,
) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Return the function from images to features, and how images are prepared.

    The latter are arguments of `EvalData`. Images are squashed and cropped as the
    authors do, but for published weights that come with a preprocessing.
    """
    from vit_scaling.evaluation.images import layer_output
    from vit_scaling.image_preprocessing import (
        SquashAndCrop,
        preprocessing_from_record,
    )

    layer = arguments.layer or "pre_logits"
    if arguments.application is not None or arguments.model is not None:
        model = _application(arguments)
        record = getattr(model, "record", None) or RunRecord((), model.input_shape[1:3])
        compute = layer_output(model, layer)
    else:
        compute, record = _trained_model(arguments, layer)
    height, width = record.image_size
    if height != width:
        raise ValueError(
            f"The model must take square images; it takes {height}x{width}."
        )
    published = record.interpolation is not None
    return compute, {
        "image_size": height,
        "value_range": record.value_range,
        "preprocess": preprocessing_from_record(record)
        if published
        else SquashAndCrop(),
    }


def _application(arguments: argparse.Namespace) -> Any:
    """Return the model of --application or --model."""
    size = arguments.image_size
    if arguments.model is not None:
        from vit_scaling.applications import weights

        read = weights.read_weights(arguments.model)
        return weights.build_model(read, image_size=size)
    from vit_scaling import applications

    known = [name for name in applications.__all__ if name.startswith("ViT")]
    if arguments.application not in known:
        raise ValueError(
            f"No application is called {arguments.application!r}. Known: "
            f"{', '.join(known)}."
        )
    size = size or 224
    return getattr(applications, arguments.application)(
        include_top=False,
        weights=arguments.weights,
        input_shape=(size, size, 3),
        pooling="head",
    )


def _trained_model(
    arguments: argparse.Namespace, layer: str
) -> tuple[Callable[[Any], Any], RunRecord]:
    """Return the features of --model_dir or --saved_model, and the model's record."""
    from vit_scaling.evaluation.images import layer_output
    from vit_scaling.export import prediction, run_loading, saved_model

    if arguments.model_dir is not None:
        model, record = run_loading.load_run(
            arguments.model_dir, averages=arguments.averages
        )
        compute = layer_output(model, layer)
    else:
        folder = prediction.find_version_folder(arguments.saved_model)
        record = saved_model.read_record(folder)
        compute = saved_model.load_feature_function(folder)
    return compute, record


def _show(result: Mapping[str, Any]) -> str:
    sweep = result.get("sweep") or [{"l2": result["l2"], "shots": result["shots"]}]
    rows = [
        [
            f"{row['l2']:g}",
            shots,
            f"{100 * accuracy['mean']:.2f}",
            f"{100 * (accuracy['interval'][1] - accuracy['mean']):.2f}",
            " ".join(f"{100 * value:.2f}" for value in accuracy["per_seed"]),
        ]
        for row in sweep
        for shots, accuracy in row["shots"].items()
    ]
    lines = [cli.table(rows, ["l2", "shots", "accuracy %", "± (95%)", "per seed %"])]
    for name in ("linear_probe", "neighbours"):
        if name in result:
            lines.append(f"{name}: {100 * result[name]['accuracy']:.2f}%")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
