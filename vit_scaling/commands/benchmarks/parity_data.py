"""Settings and batches that both sides of the parity study share; NumPy alone."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import json
import pathlib
from typing import Literal

import numpy as np

IMAGE_SIZE = 32
PADDING = 4  # Pixels on each side before a random crop, as usual for CIFAR-10.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """One run of either side: the model, the schedule, and where it is stored."""

    images: str
    folder: str
    seed: int
    epochs: int
    batch_size: int
    patch: int
    width: int
    depth: int
    heads: int
    classes: int
    learning_rate: float
    head_decay: float
    body_decay: float
    clip_norm: float
    warmup_epochs: float
    timescale_epochs: float
    cooldown_epochs: float
    momentum_dtype: Literal["float32", "bfloat16"] = "bfloat16"  # The paper's, §3.4.

    @property
    def data(self) -> "Images":
        """The images of the run."""
        return read_images(self.images)

    @property
    def epoch_steps(self) -> int:
        """Steps in an epoch; the images that fill no batch are left out."""
        return len(self.data.train_labels) // self.batch_size

    def steps(self, epochs: float) -> int:
        """Return the steps in a number of epochs."""
        return round(epochs * self.epoch_steps)

    @property
    def _result_file(self) -> pathlib.Path:
        return pathlib.Path(self.folder) / "result.json"

    def save_result(self, top1: list[float]) -> None:
        """Write the accuracy after each epoch, once the run has ended."""
        result = {"settings": dataclasses.asdict(self), "top1": top1}
        self._result_file.write_text(json.dumps(result) + "\n")

    def stored_result(self) -> list[float] | None:
        """Return what `save_result` wrote; None if the run has not ended.

        Raises:
            ValueError: The folder has a run with other settings.
        """
        if not self._result_file.exists():
            return None
        result = json.loads(self._result_file.read_text())
        if result["settings"] != dataclasses.asdict(self):
            raise ValueError(
                f"{self.folder} has a run with other settings. Repeat its flags, or "
                "choose another folder (--output_dir)."
            )
        return list(result["top1"])


@dataclasses.dataclass(frozen=True)
class Images:
    """A training set and a test set, decoded: uint8 (images, 32, 32, 3), and labels."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@functools.lru_cache(maxsize=1)
def read_images(path: str) -> Images:
    """Return the arrays that `parity.decode_images` wrote."""
    with np.load(pathlib.Path(path)) as arrays:
        return Images(*(arrays[field.name] for field in dataclasses.fields(Images)))


def train_batch(settings: Settings, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a step's images, cropped and flipped at random, and labels.

    They depend on seed and step alone, so that a run continues where it stopped, and
    both sides see the same batches.
    """
    data, size = settings.data, settings.batch_size
    epoch, position = divmod(step, settings.epoch_steps)
    order = _order(settings.seed, epoch, len(data.train_labels))
    chosen = order[position * size : (position + 1) * size]
    random = np.random.default_rng((settings.seed, 1, step))
    images = _crop(data.train_images[chosen], random)
    flipped = random.random(size) < 0.5
    images[flipped] = images[flipped, :, ::-1]
    return images, data.train_labels[chosen]


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(images)


def _crop(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (IMAGE_SIZE, IMAGE_SIZE), axis=(1, 2)
    )  # (batch, 9, 9, 3, 32, 32)
    down, right = random.integers(0, 2 * PADDING + 1, (2, len(images)))
    crops = windows[np.arange(len(images)), down, right]  # (batch, 3, 32, 32)
    return np.ascontiguousarray(crops.transpose(0, 2, 3, 1))
