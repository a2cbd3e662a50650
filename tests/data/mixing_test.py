"""Mixup and CutMix against their definitions."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.data.mixing import CutMix, Mixup

SEEDS = tf.random.split(tf.constant([1, 2], tf.int64), 400)


def batch(count=4):
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (count, 8, 8, 3)).astype(np.float32)
    return tf.constant(images), tf.eye(count)


def test_mixup_averages_each_image_with_the_one_before():
    images, labels = batch()
    mixed, weights = Mixup(0.5)(images, labels, SEEDS[0])
    share = float(weights[0, 0])
    assert 0.5 <= share <= 1
    np.testing.assert_allclose(
        weights, share * np.eye(4) + (1 - share) * np.roll(np.eye(4), 1, 0), atol=1e-6
    )
    expected = share * images.numpy() + (1 - share) * np.roll(images.numpy(), 1, 0)
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_mixup_shares_follow_the_beta_distribution():
    images, labels = batch()
    shares = [float(Mixup(1.0)(images, labels, seed)[1][0, 0]) for seed in SEEDS]
    # Beta(1, 1) folded at one half is uniform on 0.5…1: mean 0.75, deviation 0.144.
    assert abs(np.mean(shares) - 0.75) < 4 * 0.144 / np.sqrt(len(shares))


def test_cutmix_exchanges_one_box_and_weighs_labels_by_its_area():
    images, labels = batch()
    for seed in SEEDS[:20]:
        mixed, weights = CutMix()(images, labels, seed)
        changed = np.any(mixed.numpy() != images.numpy(), axis=-1)
        assert (changed == changed[0]).all()
        rows, columns = np.nonzero(changed[0])
        if len(rows):
            box = changed[
                0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
            ]
            assert box.all()
        np.testing.assert_allclose(weights[0, 0], 1 - changed[0].mean(), atol=1e-6)
        before = np.roll(images.numpy(), 1, 0)
        np.testing.assert_array_equal(mixed.numpy()[changed], before[changed])


def test_bad_settings_raise():
    with pytest.raises(ValueError, match="`alpha` must be a number above 0"):
        Mixup(0)
    with pytest.raises(ValueError, match="`alpha` must be a number above 0"):
        CutMix(-1)
