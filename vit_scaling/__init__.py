"""Scale Vision Transformers (Zhai et al., CVPR 2022); imports no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

__version__ = "0.1.0"


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
