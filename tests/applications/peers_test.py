"""The peers run beside us at the size of S/16: the issue's outputs within 1e-5.

The interpreters are named by VIT_SCALING_TORCH_PYTHON (torch, timm, transformers) and
VIT_SCALING_JAX_PYTHON (jax, flax; the sources of big_vision and vision_transformer in
VIT_SCALING_JAX_SOURCES): neither can live in TensorFlow's environment. Without them the
committed fixtures, which the same scripts wrote, stand for the peers.
"""
# SPDX-License-Identifier: Apache-2.0

import os
import subprocess

import numpy as np
import pytest

from tests.applications.cases import CASES, FOLDER, Case
from vit_scaling.applications.parity import parity
from vit_scaling.applications.weights import build_model, read_weights

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
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.environ.get("VIT_SCALING_JAX_SOURCES", "")
    script = os.path.join(PEERS, SCRIPTS[variable])
    subprocess.run([interpreter, script, folder, size], check=True, env=environment)
    return str(folder)


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
    weights = read_weights(path, **(case.told if small else {"shape": "S/16"}))
    with np.load(os.path.join(folder, "expected.npz")) as expected:
        images, wanted = expected["images"], expected["output"]
    difference = np.abs(np.asarray(build_model(weights)(images)) - wanted).max()
    largest = np.abs(wanted).max()
    print(f"{case.name}: {difference:.2e} of {largest:.2e}")
    assert difference <= 1e-5 * max(1.0, largest)
    assert parity(path, weights, images=1)["within_tolerance"]
