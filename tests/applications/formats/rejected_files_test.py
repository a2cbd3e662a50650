"""Files that can't become a model of ours say which array, which shape, what fits."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np
import pytest
import safetensors.numpy

from tests.applications.cases import NAMED, TINY
from vit_scaling import array_files as files
from vit_scaling.applications.weights import read_weights
from vit_scaling.modeling.shapes import ViTShape

BIG_VISION, TIMM = NAMED["bv_map_inlined"], NAMED["timm_token"]


def changed(case, folder, change):
    """Write the case's file with its arrays changed; return the new path."""
    if case.path.endswith(".npz"):
        arrays = files.read_npz(case.path)
        change(arrays)
        path = str(folder / "model.npz")
        np.savez(path, **arrays)
        return path
    arrays, _ = files.read_safetensors(case.path)
    change(arrays)
    path = str(folder / "model.safetensors")
    safetensors.numpy.save_file(arrays, path)
    return path


@pytest.mark.parametrize("case", [BIG_VISION, TIMM], ids=["npz", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_file_is_rejected(case, share, tmp_path):
    whole = pathlib.Path(case.path).read_bytes()
    path = tmp_path / pathlib.Path(case.path).name
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="truncated"):
        read_weights(str(path), heads=2)


@pytest.mark.parametrize("case", [BIG_VISION, TIMM], ids=["npz", "safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: np.where(a == a.max(), np.nan, a), "NaN or infinite"),
        (lambda a: np.where(a == a.max(), -np.inf, a), "NaN or infinite"),
        (lambda a: (a * 10).astype(np.int8), "holds int8, but weights are floating"),
        (lambda a: a > 0, "holds bool, but weights are floating"),
    ],
)
def test_values_that_are_no_weights_are_named(case, change, message, tmp_path):
    name = "head/kernel" if case is BIG_VISION else "blocks.1.mlp.fc2.weight"

    def replace(arrays):
        arrays[name] = change(arrays[name])

    path = changed(case, tmp_path, replace)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_weights(path, heads=2)


def test_files_changed_at_random_are_read_or_rejected_and_nothing_else(tmp_path):
    """Both formats, at their headers: no traceback of another library gets out."""
    random = np.random.default_rng(0)
    for case in (BIG_VISION, TIMM):
        original = np.frombuffer(pathlib.Path(case.path).read_bytes(), np.uint8)
        path = tmp_path / pathlib.Path(case.path).name
        for at_end in (False, True) * 40:
            damaged = original.copy()
            places = random.integers(0, 1500, size=random.choice([1, 2, 8]))
            places = len(damaged) - 1 - places if at_end else places
            damaged[places] = random.integers(0, 256, size=len(places))
            path.write_bytes(damaged.tobytes())
            try:
                read_weights(str(path), heads=2)
            except ValueError:
                continue


def test_metadata_that_is_not_ours_is_rejected(tmp_path):
    path = str(tmp_path / "x.safetensors")
    arrays, _ = files.read_safetensors(TIMM.path)
    for text in ("{}", "[1", '{"image_size": 4, "shape": {"width": "a"}}'):
        safetensors.numpy.save_file(arrays, path, {"vit_scaling": text})
        with pytest.raises(ValueError, match=r"arguments of the model .* are damaged"):
            read_weights(path)


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    path = str(tmp_path / "trap.npz")
    np.savez(path, trap=np.array(Trap(), dtype=object))
    with pytest.raises(ValueError, match="holds Python objects"):
        read_weights(path)
    assert not (tmp_path / "trapped").exists()


def test_shape_other_than_requested_names_the_array_and_what_fits():
    with pytest.raises(ValueError, match=r"'embedding/kernel'.*\(2, 2, 3, 8\).*none"):
        BIG_VISION.read(shape="B/16")


def test_variant_that_fits_is_named(tmp_path):
    from vit_scaling.applications.formats.big_vision import write_big_vision
    from vit_scaling.applications.formats.vit_weights import ViTWeights
    from vit_scaling.modeling.variables import vit_variables

    shape = ViTShape(patch=4, width=32, depth=1, mlp_width=128, heads=2)  # "mu/4"
    arguments = {"shape": shape, "head": "gap", "image_size": 8, "classes": 2}
    variables = {
        path: np.zeros(size, np.float32)
        for path, size in vit_variables(**arguments).items()
    }
    path = str(tmp_path / "mu.npz")
    weights = ViTWeights("", arguments, variables)
    files.write_npz(path, write_big_vision(weights).arrays)
    assert read_weights(path, shape="mu/4").shape == shape
    with pytest.raises(ValueError, match=r"named variants that fit: mu/4\."):
        read_weights(path, shape="S/16")


def test_depth_other_than_requested_is_named():
    deeper = ViTShape(patch=2, width=8, depth=3, mlp_width=12, heads=2)
    with pytest.raises(ValueError, match="it has 2 blocks, not 3"):
        BIG_VISION.read(shape=deeper)
    assert BIG_VISION.read(shape=TINY).shape == TINY


def test_unknown_heads_are_rejected():
    with pytest.raises(ValueError, match=r"Give `heads` \(--heads .*or `shape`"):
        read_weights(TIMM.path)
    with pytest.raises(ValueError, match="multiple of `heads`"):
        read_weights(TIMM.path, heads=3)


@pytest.mark.parametrize(
    ("case", "array", "message"),
    [
        (BIG_VISION, "MlpBlock_0/Dense_0/kernel", "map_head/mlp/dense_0/kernel"),
        (BIG_VISION, "Transformer/encoder_norm/bias", "encoder_norm/beta"),
        (TIMM, "norm.weight", "encoder_norm/gamma"),
        (TIMM, "blocks.1.mlp.fc2.bias", "block_01/mlp/dense_1/bias"),
        (TIMM, "blocks.1.attn.qkv.bias", "block_01/attention/query/bias"),
    ],
)
def test_missing_array_is_named(case, array, message, tmp_path):
    path = changed(case, tmp_path, lambda arrays: arrays.pop(array))
    with pytest.raises(ValueError, match=f"missing.*{message}"):
        read_weights(path, heads=2)


def test_missing_block_is_named(tmp_path):
    def without_block_0(arrays):
        for name in [name for name in arrays if "encoderblock_0" in name]:
            del arrays[name]

    path = changed(BIG_VISION, tmp_path, without_block_0)
    with pytest.raises(ValueError, match="is missing"):
        read_weights(path)


def test_array_of_a_wrong_shape_is_named(tmp_path):
    def narrow(arrays):
        name = "Transformer/encoderblock_1/MlpBlock_0/Dense_0/bias"
        arrays[name] = arrays[name][:-1]

    path = changed(BIG_VISION, tmp_path, narrow)
    with pytest.raises(ValueError, match=r"encoderblock_1/MlpBlock_0/Dense_0/bias"):
        read_weights(path)


@pytest.mark.parametrize("case", [BIG_VISION, TIMM], ids=["npz", "safetensors"])
def test_unknown_array_is_rejected_unless_ignored(case, tmp_path):
    path = changed(case, tmp_path, lambda a: a.update({"rope.freqs": np.ones(3)}))
    with pytest.raises(ValueError, match=r"1 arrays have no counterpart.*rope\.freqs"):
        read_weights(path, heads=2)
    weights = read_weights(path, heads=2, ignore=r"rope\..*")
    assert weights.left_out == {"rope.freqs": "ignored, as requested"}


def test_hybrid_with_a_resnet_is_rejected(tmp_path):
    path = changed(
        BIG_VISION, tmp_path, lambda a: a.update({"conv_root/kernel": np.ones(3)})
    )
    with pytest.raises(ValueError, match="hybrid with a ResNet"):
        read_weights(path)


def test_head_that_the_file_does_not_hold_is_rejected():
    with pytest.raises(ValueError, match=r"'map', but the file holds .* 'token' head"):
        TIMM.read(head="map")
    with pytest.raises(ValueError, match="classifier was trained on its MAP head"):
        BIG_VISION.read(head="gap")
    weights = BIG_VISION.read(head="gap", ignore="head/.*")
    assert weights.arguments["classes"] is None


def test_positions_that_fit_no_grid_are_rejected(tmp_path):
    def five(arrays):
        arrays["pos_embedding"] = np.ones((1, 6, 8), np.float32)

    path = changed(BIG_VISION, tmp_path, five)
    with pytest.raises(ValueError, match="6 positions"):
        read_weights(path)
    assert read_weights(path, source_image_size=(4, 6)).arguments["image_size"] == (
        4,
        6,
    )
    with pytest.raises(ValueError, match="`source_image_size`=8"):
        read_weights(path, source_image_size=8)


def test_naflex_positions_are_rejected(tmp_path):
    path = changed(
        BIG_VISION, tmp_path, lambda a: a.update(pos_embedding=np.ones((2, 2, 8)))
    )
    with pytest.raises(ValueError, match="NaFlex"):
        read_weights(path)


def test_naflex_patches_are_rejected(tmp_path):
    def rows_of_numbers(arrays):
        kernel = arrays["embedding/kernel"]
        arrays["embedding/kernel"] = kernel.reshape(-1, kernel.shape[-1])

    with pytest.raises(ValueError, match="NaFlex"):
        read_weights(changed(BIG_VISION, tmp_path, rows_of_numbers))


def test_unknown_layout_lists_the_known_ones(tmp_path):
    path = str(tmp_path / "other.npz")
    np.savez(path, weight=np.ones(3))
    with pytest.raises(
        ValueError, match=r"first arrays are weight\. Known: this package's own"
    ):
        read_weights(path)
