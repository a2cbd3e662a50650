"""Scale Vision Transformers (Zhai et al., CVPR 2022); imports no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from vit_scaling import keras_classes

__version__ = "0.1.0"

keras_classes.register_lazily()


def load_run(model_dir: Any) -> Any:
    """Return a training run as a `trained_run.TrainedRun`: model, predictions, metrics.

    Args:
        model_dir: Folder of the run.

    Example:
        >>> run = vit_scaling.load_run("RUN")  # doctest: +SKIP
        >>> run.predict(["cat.jpg"])  # doctest: +SKIP
    """
    from vit_scaling.trained_run import TrainedRun  # Imports TensorFlow.

    return TrainedRun(model_dir)


def load(source: str, **options: Any) -> Any:
    """Return a Keras model with published or own weights.

    Args:
        source: A name in `list_weights()`, "hf://OWNER/NAME@REVISION", "augreg:NAME",
            a file, a folder that transformers or timm saved, or a run; see
            `applications.addresses.local_path`.
        **options: `image_size`, `dtype` and others of
            `applications.weights.load_model`.

    Example:
        >>> model = vit_scaling.load("dinov2-s14", image_size=224)  # doctest: +SKIP
    """
    from vit_scaling.applications.weights import load_model  # Imports TensorFlow.

    return load_model(source, **options)


def list_weights(pattern: str = "*") -> list[Any]:
    """Return the published weights whose name matches a shell pattern, as records.

    Args:
        pattern: Such as "*b16*", in any case; see `applications.published`.

    Example:
        >>> [weights.name for weights in list_weights("mae-*")]
        ['mae-b16', 'mae-l16', 'mae-h14']
    """
    from vit_scaling.applications import published

    return published.list_weights(pattern)
