"""The GPU compiler's worker: topologies, descriptions, and a real compilation."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import subprocess
import sys

import pytest

from vit_scaling.preflight import gpu_worker
from vit_scaling.scaling.planning.devices import DEVICES

PYTHON = os.environ.get("VIT_SCALING_GPU_PYTHON")
# Each replica's product of two matrices, summed over two replicas.
PROGRAM = """
module @step attributes {mhlo.num_replicas = 2 : i32} {
  func.func @main(%a: tensor<256x128xbf16>, %b: tensor<128x512xbf16>)
      -> tensor<256x512xf32> {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
      : (tensor<256x128xbf16>, tensor<128x512xbf16>) -> tensor<256x512xf32>
    %1 = "stablehlo.all_reduce"(%0) ({
      ^bb0(%x: tensor<f32>, %y: tensor<f32>):
        %s = stablehlo.add %x, %y : tensor<f32>
        stablehlo.return %s : tensor<f32>
    }) {replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}
      : (tensor<256x512xf32>) -> tensor<256x512xf32>
    return %1 : tensor<256x512xf32>
  }
}
"""


@pytest.mark.parametrize(
    ("topology", "name", "replicas"),
    [("h100", "H100", 1), ("h100x8", "H100", 8), ("rtx_4090x2", "4090", 2)],
)
def test_a_topology_is_a_gpu_and_a_number(topology, name, replicas):
    gpu, number = gpu_worker.parse_topology(topology)
    assert name in gpu.name and number == replicas


@pytest.mark.parametrize("topology", ["h10", "h100x9", "h100x0", "h100:2", ""])
def test_another_topology_is_rejected(topology):
    with pytest.raises(ValueError, match="h100, h200"):
        gpu_worker.parse_topology(topology)


@pytest.mark.parametrize("name", gpu_worker.GPUS)
def test_descriptions_agree_with_the_planners_devices(name):
    gpu, device = gpu_worker.GPUS[name], DEVICES[name]
    # The manufacturer's peak of dense bfloat16 with float32 sums, from cores and clock.
    # Products a cycle and core; a GeForce has half of its generation's.
    products = {(8, 0): 1024, (9, 0): 2048, (8, 9): 512}[gpu.capability]
    products //= 2 if name.startswith("rtx") else 1
    peak = 2 * products * gpu.cores * gpu.clock * 1e9
    assert peak == pytest.approx(device.peak_flops, rel=0.12)
    assert device.memory_bytes < gpu.memory


def test_a_description_is_a_proto_in_text_form():
    text = gpu_worker.target_config(gpu_worker.GPUS["l4"])
    assert text.count("{") == text.count("}") == 3
    assert "core_count: 58" in text and "major: 8 minor: 9" in text
    assert len(re.findall(r"^\w+|  \w+:", text, re.MULTILINE)) > 20


@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None, reason="needs VIT_SCALING_GPU_PYTHON, a Python with jax[cuda12]"
)
def test_a_program_is_compiled_for_gpus_that_are_not_attached(tmp_path):
    program, result = tmp_path / "program.mlir", tmp_path / "result.json"
    program.write_text(PROGRAM)
    subprocess.run(
        [
            PYTHON,
            gpu_worker.__file__,
            program,
            "h100x2",
            result,
            "{}",
            tmp_path / "hlo",
        ],
        check=True,
    )
    found = json.loads(result.read_text())
    assert "error" not in found, found["error"]
    assert found["replicas"] == 2 and "H100" in found["device_kind"]
    # The product, and a sum over the replicas.
    assert found["flops"] == pytest.approx(2 * 256 * 128 * 512, rel=0.01)
    assert found["argument_bytes"] == 2 * (256 * 128 + 128 * 512)
    assert found["output_bytes"] == 4 * 256 * 512
    assert found["bytes_accessed"] >= found["argument_bytes"] + found["output_bytes"]
    assert "all-reduce" in (tmp_path / "hlo").read_text()


def test_the_worker_imports_nothing_of_the_package():
    code = f"import runpy; runpy.run_path({gpu_worker.__file__!r})"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
