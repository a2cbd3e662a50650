"""Folders for transformers and timm: read again, and loaded by their own loaders."""
# SPDX-License-Identifier: Apache-2.0

import json
import os

import numpy as np
import pytest

from tests.applications.peers_test import run_script
from tests.applications.published_folders import random_weights
from vit_scaling.applications.model_folders import export_folder
from vit_scaling.applications.weights import build_model, read_weights

AUTO = "AutoModelForImageClassification"
# Format, options of `vit`, the loader in the peer's project.
CASES = [
    ("huggingface", {"head": "token"}, AUTO),
    ("huggingface", {"head": "token", "approximate_gelu": False}, AUTO),
    ("huggingface", {"head": "token", "norm_epsilon": 1e-12}, AUTO),
    ("huggingface", {"head": "gap"}, AUTO),
    ("huggingface", {"head": "gap", "position": "sincos"}, AUTO),
    ("huggingface", {"head": "map"}, AUTO),  # Through transformers' timm wrapper.
    ("huggingface", {"head": "map", "classes": None}, "SiglipVisionModel"),
    ("timm", {"head": "token", "layer_scale": 0.1, "register_tokens": 3}, "timm"),
    ("timm", {"head": "gap", "qk_norm": True}, "timm"),
    ("timm", {"head": "gap", "norm_after_pooling": True}, "timm"),
    ("timm", {"head": "map", "approximate_gelu": False}, "timm"),
    ("timm", {"head": "map", "classes": None}, "timm"),
    ("timm", {"head": "token", "norm_epsilon": 1e-5}, "timm"),
]
IDS = [f"{kind}-{'-'.join(map(str, options.values()))}" for kind, options, _ in CASES]


def images():
    return np.random.default_rng(0).uniform(-2, 2, (2, 4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(("kind", "options", "loader"), CASES, ids=IDS)
def test_folders_are_read_again_with_equal_outputs(kind, options, loader, tmp_path):
    weights = random_weights(**options)
    folder = str(tmp_path / "out")
    report = export_folder(weights, folder, kind=kind)
    assert folder in report["load_with"] and loader.split("_")[0] in report["load_with"]
    again = read_weights(folder)
    assert not again.assumed
    expected = build_model(weights)(images())
    np.testing.assert_allclose(build_model(again)(images()), expected, atol=1e-6)
    assert again.record == weights.record
    # What other programs read, without our own metadata.
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    names = config.get("label_names") or list(config.get("id2label", {}).values())
    assert names == list(weights.record.class_names)


@pytest.mark.slow
def test_the_projects_own_loaders_give_equal_logits_and_names(tmp_path):
    interpreter = os.environ.get("VIT_SCALING_TORCH_PYTHON")
    if not interpreter:
        pytest.skip("VIT_SCALING_TORCH_PYTHON names no interpreter that has timm")
    cases, models = [], []
    for number, (kind, options, loader) in enumerate(CASES):
        weights, folder = random_weights(**options), str(tmp_path / str(number))
        export_folder(weights, folder, kind=kind)
        cases.append({"loader": loader, "folder": folder})
        models.append(build_model(weights))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    np.save(tmp_path / "images.npy", images())
    files = [str(tmp_path / name) for name in ("cases.json", "images.npy", "out.npz")]
    run_script(interpreter, "load_folder.py", *files)
    with np.load(files[-1]) as outputs:
        for number, model in enumerate(models):
            output, names = outputs[f"{number}/output"], outputs[f"{number}/names"]
            difference = np.abs(output - model(images())).max()
            print(f"{IDS[number]}: {difference:.2e} of {np.abs(output).max():.2f}")
            assert difference <= 1e-5
            assert tuple(names) == models[number].record.class_names


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("huggingface", {"head": "token", "layer_scale": 0.1}, "layer_scale=.*timm"),
        ("huggingface", {"head": "gap", "register_tokens": 2}, "register_tokens=2"),
        ("timm", {"head": "gap", "norm_epsilon": 1e-3}, "model's is 0.001"),
        ("timm", {"head": "token", "representation_width": 5}, "before the classifier"),
        ("onnx", {"head": "gap"}, "format"),
    ],
)
def test_what_a_project_lacks_is_named_and_nothing_is_written(
    kind, options, message, tmp_path
):
    weights = random_weights(**options)
    with pytest.raises(ValueError, match=message):
        export_folder(weights, str(tmp_path / "out"), kind=kind)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept(tmp_path):
    (tmp_path / "own.txt").write_text("kept")
    with pytest.raises(FileExistsError):
        export_folder(random_weights(), str(tmp_path), kind="timm")
    assert (tmp_path / "own.txt").read_text() == "kept"
