"""A training run in Python: its model, classes, predictions and metrics."""
# SPDX-License-Identifier: Apache-2.0

import functools
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from vit_scaling.export import prediction, run_loading
from vit_scaling.image_preprocessing import (
    EvaluationPreprocessing,
    preprocessing_from_record,
)
from vit_scaling.run_record import RunRecord


class TrainedRun:
    """A run's model with the weights that the run evaluates.

    Attributes:
        model_dir: Folder of the run.
        model: The Keras model, in float32.
        record: What the run recorded (`run.json`).
    """

    def __init__(self, model_dir: epath.PathLike) -> None:
        """Load the newest checkpoint of a run.

        Raises:
            FileNotFoundError: A file of the run is missing.
            ValueError: A file of the run is damaged.
        """
        self.model_dir = epath.Path(model_dir)
        self.model: keras.Model
        self.record: RunRecord
        self.model, self.record = run_loading.load_run(model_dir)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.record.class_names

    @property
    def preprocess(self) -> EvaluationPreprocessing:
        """The preparation of an image: encoded bytes and size to uint8 pixels."""
        run_loading.check_exportable(self.model, self.record)
        return preprocessing_from_record(self.record)

    def predict(
        self, images: Sequence[epath.PathLike | np.ndarray], *, top: int = 5
    ) -> list[prediction.Prediction]:
        """Return the best classes of images.

        Args:
            images: Paths of files, or uint8 arrays (height, width, 3).
            top: Number of classes for each image.

        Raises:
            ValueError: An image cannot be read, or a file is missing.
        """
        named = [_name_and_encode(image, n) for n, image in enumerate(images)]
        predictions = list(prediction.predict(named, self._predictor(top)))
        for row in predictions:
            if row.error is not None:
                raise ValueError(f"{row.name}: {row.error}")
        return predictions

    @functools.cached_property
    def metrics(self) -> Any:
        """All rows of `metrics.jsonl`, a pandas DataFrame."""
        import pandas

        lines = (self.model_dir / "metrics.jsonl").read_text(encoding="utf-8")
        return pandas.DataFrame([json.loads(line) for line in lines.splitlines()])

    @functools.lru_cache(maxsize=1)  # noqa: B019  (one predictor as long as the run)
    def _predictor(self, top: int) -> prediction.Predictor:
        return prediction.make_model_predictor(self.model, self.record, top_k=top)


def _name_and_encode(
    image: epath.PathLike | np.ndarray, number: int
) -> prediction.NamedImage:
    if isinstance(image, np.ndarray):
        return prediction.NamedImage(f"image {number}", tf.io.encode_png(image).numpy())
    return next(prediction.read_image_files([str(image)]))
