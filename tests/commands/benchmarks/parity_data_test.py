"""Both sides of the parity study see the same crops of the same images."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.commands.benchmarks import parity_data


def make_settings(folder, **changes):
    """Return settings of a tiny run on 40 training images, which are written."""
    generator = np.random.default_rng(0)
    path = folder / "images.npz"
    sizes = {"train": 40, "test": 20}
    arrays = {}
    for name, count in sizes.items():
        pixels = generator.integers(1, 256, (count, 32, 32, 3), np.uint8)
        arrays |= {f"{name}_images": pixels, f"{name}_labels": np.arange(count) % 4}
    np.savez(path, **arrays)
    parity_data.read_images.cache_clear()
    values = {
        **{"images": str(path), "folder": str(folder), "seed": 0, "epochs": 2},
        **{"batch_size": 8, "patch": 16, "width": 12, "depth": 1, "heads": 2},
        **{"classes": 4, "learning_rate": 1e-3, "head_decay": 3.0, "clip_norm": 1.0},
        **{"body_decay": 0.03, "warmup_epochs": 0.5, "timescale_epochs": 0.5},
        "cooldown_epochs": 0.5,
    }
    return parity_data.Settings(**values | changes)


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def find_source(image, images):
    """Return the numbers of the images of which `image` is a crop, flipped or not."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    return {
        number
        for number, source in enumerate(padded)
        for flipped in (image, image[:, ::-1])
        for down in range(9)
        for right in range(9)
        if np.array_equal(source[down : down + 32, right : right + 32], flipped)
    }


def test_a_batch_is_shifted_and_flipped_images_with_their_labels(settings):
    images, labels = parity_data.train_batch(settings, 0)
    data = settings.data
    for image, label in zip(images, labels, strict=True):
        (source,) = find_source(image, data.train_images)
        assert data.train_labels[source] == label


def test_an_epoch_has_every_image_once_and_another_order_than_the_next(settings):
    epochs = [
        [parity_data.train_batch(settings, step)[1] for step in steps]
        for steps in (range(5), range(5, 10))
    ]
    first, second = (np.concatenate(labels) for labels in epochs)
    assert sorted(first) == sorted(second) == sorted(np.arange(40) % 4)
    assert first.tolist() != second.tolist()


def test_a_step_has_the_same_batch_whatever_was_read_before(settings):
    parity_data.train_batch(settings, 3)
    again, other = (parity_data.train_batch(settings, step)[0] for step in (7, 8))
    np.testing.assert_array_equal(parity_data.train_batch(settings, 7)[0], again)
    assert not np.array_equal(again, other)


def test_the_result_of_other_settings_is_rejected(settings, tmp_path):
    assert settings.stored_result() is None
    settings.save_result([0.25, 0.5])
    assert settings.stored_result() == [0.25, 0.5]
    with pytest.raises(ValueError, match=r"other settings.*--output_dir"):
        make_settings(tmp_path, width=24).stored_result()
