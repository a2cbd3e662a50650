"""Tiles of 8 × 128 on a TPU, and none elsewhere."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.scaling.planning.array_sizes import array_bytes


def test_tiles_pad_257_tokens_to_384():
    assert array_bytes((257, 257), 2, tpu=True) == 264 * 384 * 2
    assert array_bytes((256, 256), 2, tpu=True) == 256 * 256 * 2
    assert array_bytes((257, 257), 2, tpu=False) == 257 * 257 * 2
    assert array_bytes((192,), 4, tpu=True) == 256 * 4
    assert array_bytes((196, 192), 2, tpu=True) == 256 * 192 * 2  # Tokens in lanes.
    assert array_bytes((196, 768), 2, tpu=True) == 200 * 768 * 2  # Width in lanes.
