"""The peers run at the size of S/16: the issue's outputs within 1e-5.

The interpreters are named by VIT_SCALING_TORCH_PYTHON (torch, timm, transformers) and
VIT_SCALING_JAX_PYTHON (jax, flax; the sources of big_vision and vision_transformer in
VIT_SCALING_JAX_SOURCES): neither can live in TensorFlow's environment. Without them the
committed fixtures, which the same scripts wrote, stand for the peers.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import subprocess
from importlib import resources

import numpy as np
import pytest

from tests.applications.cases import CASES, FOLDER, TINY, Case
from vit_scaling.applications.parity import measure_parity
from vit_scaling.applications.weights import (
    build_model,
    export_weights,
    read_weights,
)
from vit_scaling.modeling.vit import vit

PEERS = os.path.join(os.path.dirname(__file__), "peers")
SCRIPTS = {
    "VIT_SCALING_TORCH_PYTHON": "make_torch_fixtures.py",
    "VIT_SCALING_JAX_PYTHON": "make_jax_fixtures.py",
}


def run_peer(variable, folder, size):
    """Let a peer write its files; return the folder, or the committed one."""
    interpreter = os.environ.get(variable)
    if not interpreter:
        return FOLDER
    run_script(interpreter, SCRIPTS[variable], folder, size)
    return str(folder)


def run_script(interpreter, script, *arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.environ.get("VIT_SCALING_JAX_SOURCES", "")
    command = [interpreter, os.path.join(PEERS, script), *arguments]
    subprocess.run(command, check=True, env=environment)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        variable: run_peer(variable, tmp_path_factory.mktemp("peer"), "s16")
        for variable in SCRIPTS
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_outputs_at_the_size_of_s16_are_the_peers_within_1e_5(case: Case, folders):
    is_jax = case.layout == "big_vision"
    variable = "VIT_SCALING_JAX_PYTHON" if is_jax else "VIT_SCALING_TORCH_PYTHON"
    folder = os.path.join(folders[variable], case.name)
    small = folders[variable] == FOLDER
    path = os.path.join(folder, os.path.basename(case.path))
    weights = read_weights(path, **(case.options if small else {"shape": "S/16"}))
    with np.load(os.path.join(folder, "expected.npz")) as expected:
        images, wanted = expected["images"], expected["output"]
    difference = np.abs(np.asarray(build_model(weights)(images)) - wanted).max()
    largest = np.abs(wanted).max()
    print(f"{case.name}: {difference:.2e} of {largest:.2e}")
    assert difference <= 1e-5 * max(1.0, largest)
    assert measure_parity(path, weights, images=1)["within_tolerance"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_gap_224",
        "vit_tiny_patch16_224",
        "vit_small_patch14_reg4_dinov2",
    ],
)
def test_shallow_models_of_timms_registry_give_timms_outputs(name, tmp_path):
    """Without an option: config.json and the table of the registry say everything."""
    interpreter = os.environ.get("VIT_SCALING_TORCH_PYTHON")
    if not interpreter:
        pytest.skip("VIT_SCALING_TORCH_PYTHON names no interpreter that has timm")
    table = resources.files("vit_scaling.applications.formats") / "timm_models.csv"
    run_script(interpreter, "make_timm_models.py", str(table), str(tmp_path), name)
    weights = read_weights(str(tmp_path / name))
    assert not weights.assumed
    with np.load(tmp_path / name / "expected.npz") as expected:
        images, wanted = expected["images"], expected["output"]
    outputs = build_model(weights)(images)
    np.testing.assert_allclose(
        outputs, wanted, atol=1e-5 * max(1, np.abs(wanted).max())
    )
    parity = measure_parity(str(tmp_path / name), weights, images=1)
    assert parity["within_tolerance"] and not parity["not_compared"]


def drawn(**options):
    model = vit(TINY, image_size=4, classes=3, **options)
    random = np.random.default_rng(5)
    for variable in model.variables:
        gain = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(random.normal(size=variable.shape) * 0.3 + gain)
    return model


BIG_VISION = {
    "num_classes": 3, "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2,
    "patch_size": [2, 2],
}  # fmt: skip
EXPORTS = [
    ("big_vision", {"head": "map"}, {"pool_type": "map"}),
    ("big_vision", {"head": "token", "representation_width": 5},
     {"pool_type": "tok", "rep_size": 5}),
    ("big_vision", {"head": "gap", "position": "sincos"},
     {"pool_type": "gap", "posemb": "sincos2d"}),
    # timm's own arguments are those that the export names.
    ("timm", {"head": "map"}, None),
    ("timm", {"head": "map", "approximate_gelu": False}, None),
    ("timm", {"head": "gap", "layer_scale": 0.1, "qk_norm": True}, None),
    ("timm", {"head": "token", "register_tokens": 3}, None),
    ("timm", {"head": "token", "norm_epsilon": 0.1}, None),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("project", "options", "theirs"), EXPORTS, ids=str)
def test_what_we_export_loads_in_the_peer_and_answers_alike(
    project, options, theirs, tmp_path
):
    variable = "VIT_SCALING_TORCH_PYTHON" if project == "timm" else (
        "VIT_SCALING_JAX_PYTHON"
    )  # fmt: skip
    interpreter = os.environ.get(variable)
    if not interpreter:
        pytest.skip(f"{variable} names no interpreter that has {project}")
    model = drawn(**options)
    file = str(tmp_path / f"m.{'safetensors' if project == 'timm' else 'npz'}")
    report = export_weights(model, file)
    images, output = str(tmp_path / "images.npy"), str(tmp_path / "output.npy")
    shown = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype("f")
    np.save(images, shown)
    arguments = json.dumps(
        report["load_with"] if project == "timm" else {**BIG_VISION, **theirs}
    )
    run_script(interpreter, "answer.py", project, file, arguments, images, output)
    np.testing.assert_allclose(model(shown), np.load(output), atol=1e-5)
