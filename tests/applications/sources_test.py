"""Every file and folder is read as what it is, or the message says what it is."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pickle
import shutil
import zipfile

import keras
import numpy as np
import pytest

from tests.applications.cases import NAMED, TINY
from vit_scaling import array_files
from vit_scaling.applications import ViTs28
from vit_scaling.applications.finetuning import load_for_finetuning
from vit_scaling.applications.sources import NPZ, SAFETENSORS, find_source
from vit_scaling.applications.weights import build_model, read_weights
from vit_scaling.commands import import_weights
from vit_scaling.modeling.vit import vit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
HF_VIT = NAMED["hf_vit"]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def shards(tmp_path):
    """Hugging Face's ViT as `save_pretrained` writes it with a small shard size."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    shutil.copy(os.path.join(os.path.dirname(HF_VIT.path), "config.json"), folder)
    arrays, _ = array_files.read_safetensors(HF_VIT.path)
    weight_map = {}
    for number, names in enumerate(np.array_split(sorted(arrays), 3), 1):
        file = f"model-{number:05d}-of-00003.safetensors"
        part = {str(name): arrays[name] for name in names}
        array_files.write_safetensors(str(folder / file), part, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", [".", INDEX])
def test_shards_give_the_outputs_of_the_peer(shards, name):
    images, outputs = HF_VIT.expected()
    weights = read_weights(str(shards / name))
    assert not weights.assumed  # The config.json in the folder was read.
    np.testing.assert_allclose(build_model(weights)(images), outputs, atol=1e-5)


def test_folder_of_one_file_is_read_with_its_configuration():
    images, outputs = HF_VIT.expected()
    weights = read_weights(os.path.dirname(HF_VIT.path))
    assert not weights.assumed
    np.testing.assert_allclose(build_model(weights)(images), outputs, atol=1e-5)


def test_folder_is_imported_with_parity_and_fine_tuned(shards, tmp_path, capsys):
    output = str(tmp_path / "o.keras")
    assert import_weights.main([f"--source={shards}", f"--output={output}"]) == 0
    assert "differ from the source's by at most" in capsys.readouterr().out
    options = {"approximate_gelu": False, "norm_epsilon": 1e-12}
    model = vit(TINY, "token", image_size=4, classes=2, **options)
    start = load_for_finetuning(model, str(shards))
    assert start.initialised == ("head/kernel", "head/bias")


def test_missing_shard_is_named(shards):
    os.remove(shards / "model-00002-of-00003.safetensors")
    with pytest.raises(FileNotFoundError, match=r"do not exist: model-00002-of-00003"):
        read_weights(str(shards))


def test_single_shard_is_not_taken_for_the_model(shards):
    with pytest.raises(ValueError, match=r"one of several shards.* Give the folder"):
        read_weights(str(shards / "model-00001-of-00003.safetensors"))


@pytest.mark.parametrize("name", ["model.bin", "model", "model.npz"])
def test_content_counts_before_the_name(name, tmp_path):
    path = shutil.copy(HF_VIT.path, tmp_path / name)
    assert find_source(str(path)).kind == SAFETENSORS
    other = shutil.copy(NAMED["bv_map"].path, tmp_path / "a.safetensors")
    assert find_source(str(other)).kind == NPZ
    assert read_weights(str(other)).arguments["head"] == "map"


def pytorch(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02")
        file.writestr("archive/data/0", b"\0" * 64)


def older_pytorch(path):
    path.write_bytes(pickle.dumps({"weight": [0.0]}, protocol=2))


def keras_weights(path):
    small_vit().save_weights(path)


def older_keras(path):
    small_vit().save(path)


def small_vit():
    return vit(TINY, image_size=4, classes=2)


UNREADABLE = [
    ("pytorch_model.bin", pytorch, r"a PyTorch checkpoint.*safetensors\.torch"),
    ("weights.npz", pytorch, r"a PyTorch checkpoint"),
    ("model.pth", older_pytorch, r"a PyTorch checkpoint"),
    ("m.weights.h5", keras_weights, r"weights alone \(\.weights\.h5\).*ViTB16\(weig"),
    ("m.h5", older_keras, r"older HDF5 form.*keras\.saving\.load_model"),
    ("a.safetensors", lambda path: path.write_text("version https://git-lfs.github.com"
     "/spec/v1\noid sha256:4d7a\nsize 1\n"), r"pointer of Git LFS.*git lfs pull"),
    ("a.npz", lambda path: path.write_text("<!DOCTYPE html><html>"), "a web page"),
    ("a.npy", lambda path: np.save(path, np.zeros(3)), r"single NumPy array"),
    ("a.txt", lambda path: path.write_text("hello"), r"begins with b'hello'.*Give a"),
    ("a.onnx", lambda path: path.write_bytes(b"\x08\x08\x12"), "no known file of wei"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(("name", "write", "message"), UNREADABLE)
def test_other_files_are_named_with_advice(name, write, message, tmp_path):
    path = tmp_path / name
    write(path)
    for read in (read_weights, fine_tuned):
        with pytest.raises(ValueError, match=message) as error:
            read(str(path))
        assert name in str(error.value)


def fine_tuned(path):
    load_for_finetuning(small_vit(), path)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["pytorch_model.bin"], ValueError, r"PyTorch checkpoints.*save_pretrained"),
        (["pytorch_model.bin.index.json"], ValueError, "PyTorch checkpoints"),
        (["saved_model.pb", "variables"], ValueError, "SavedModel.*exported from"),
        (["a.txt"], FileNotFoundError, r"neither model\.json.*It holds a\.txt"),
        ([], FileNotFoundError, "It holds nothing"),
    ],
)
def test_other_folders_are_named_with_advice(names, error, message, tmp_path):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(error, match=message):
        read_weights(str(tmp_path))


def test_keras_model_needs_its_suffix(tmp_path):
    small_vit().save(tmp_path / "m.keras")
    path = (tmp_path / "m.keras").rename(tmp_path / "m.zip")
    with pytest.raises(ValueError, match=r"ends in \.keras. Rename it"):
        read_weights(str(path))


def test_index_without_a_map_is_named(tmp_path):
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(ValueError, match="no 'weight_map'"):
        read_weights(str(tmp_path))


def test_averages_are_those_of_a_run():
    with pytest.raises(ValueError, match=r"`averages` .*of a run, and .* Leave it out"):
        read_weights(HF_VIT.path, averages=True)


@pytest.mark.parametrize(
    ("write", "head"),
    [
        (keras_weights, "map"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n cut off"), "map"),
        # A layer without arrays would be dropped.
        (lambda path: tiny(input_tensor=scaled_images()).save_weights(path), "map"),
        # All of its arrays but those of the MAP head would fit.
        (lambda path: tiny(head="map").save_weights(path), "gap"),
    ],
)
def test_keras_weights_that_do_not_fit_are_named(write, head, tmp_path):
    path = tmp_path / "other.weights.h5"
    write(path)
    with pytest.raises(ValueError, match=r"other\.weights\.h5' can't be loaded into"):
        tiny(weights=str(path), head=head)


def scaled_images():
    return keras.layers.Rescaling(1 / 127.5, -1)(keras.Input((28, 28, 3)))


def tiny(**options):
    shape = None if "input_tensor" in options else (28, 28, 3)
    return ViTs28(input_shape=shape, classes=2, **options)


@pytest.mark.parametrize(
    "options", [{}, {"include_top": False}, {"include_top": False, "pooling": "max"},
                {"head": "token", "classifier_activation": None}], ids=str,
)  # fmt: skip
def test_keras_weights_of_every_form_of_output_are_read(options, tmp_path):
    path = str(tmp_path / "own.weights.h5")
    model = tiny(**options)
    for variable in model.variables:
        variable.assign(variable + 1.0)
    model.save_weights(path)
    again = tiny(weights=path, **options)
    for ours, theirs in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
