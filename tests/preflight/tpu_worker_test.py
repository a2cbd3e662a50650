"""The real TPU compiler, in its own environment, on small programs.

`-m slow`. VIT_SCALING_TPU_PYTHON names a Python with jax and libtpu; without it one is
created (about 1 GB).
"""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preflight.programs import CUSTOM_CALL, LINEAR
from vit_scaling.preflight import (
    environment,
    gpu_worker,
    program,
    report,
    tpu_worker,
)
from vit_scaling.preflight.compiler import Compiler
from vit_scaling.preflight.environment import TPU
from vit_scaling.preflight.targets import find_target
from vit_scaling.scaling.planning.devices import DEVICES, device_named

# Replicas: two cores of each v2 and v3 chip, one chip of the others.
REPLICAS = {
    **{"v2:2x2": 8, "v3:2x2": 8, "v4:2x2x1": 4, "v5e:2x2": 4, "v5p:2x2x1": 4},
    **{"v6e:2x2": 4, "v3:4x4": 32, "v3:16x16": 512, "v3:32x32": 2048},
    **{"v5e:16x16": 256, "v4:4x4x4": 64},
}
TOPOLOGIES = ("v2:2x2", "v3:2x2", "v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2")
SUM_OVER_REPLICAS = """\
module @step {{
  func.func @main(%arg0: tensor<1024x1024xbf16>) -> tensor<1024x1024xbf16> {{
    %0 = "stablehlo.all_reduce"(%arg0) <{{replica_groups = dense<[[{groups}]]> : \
tensor<1x{n}xi64>}}> ({{
    ^bb0(%arg1: tensor<bf16>, %arg2: tensor<bf16>):
      %1 = stablehlo.add %arg1, %arg2 : tensor<bf16>
      stablehlo.return %1 : tensor<bf16>
    }}) : (tensor<1024x1024xbf16>) -> tensor<1024x1024xbf16>
    return %0 : tensor<1024x1024xbf16>
  }}
}}
"""
SUM = """\
module @step {{
  func.func @main(%arg0: tensor<{n}x65536xf32>, %arg1: tensor<{n}x65536xf32>) \
-> tensor<{n}x65536xf32> {{
    %0 = stablehlo.add %arg0, %arg1 : tensor<{n}x65536xf32>
    return %0 : tensor<{n}x65536xf32>
  }}
}}
"""


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(TPU, environment.find_python(TPU), None)


def test_the_worker_does_not_import_this_package():
    source = Path(tpu_worker.__file__).read_text(encoding="utf-8")
    assert "import vit_scaling" not in source
    assert "from vit_scaling" not in source


@pytest.mark.parametrize("worker", [tpu_worker, gpu_worker])
def test_the_users_flags_do_not_reach_the_compiler(worker, monkeypatch):
    """Results are cached by program and versions, not by such flags."""
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": "--xla_of_the_user=true"})
    monkeypatch.setattr(worker, "read_versions", dict)
    monkeypatch.setitem(sys.modules, "jax", None)  # Nothing is compiled here.
    with contextlib.suppress(ImportError):
        worker.compile_program("program.mlir", "h100")
    assert "of_the_user" not in os.environ["XLA_FLAGS"]


def test_the_worker_names_a_missing_package():
    done = subprocess.run(
        [sys.executable, tpu_worker.__file__, "--versions"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "No package metadata was found for" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_sum_is_compiled_for_every_version(compiler, topology):
    result, _ = compiler.compile(SUM.format(n=64), topology)
    array = 64 * 65536 * 4
    assert result["argument_bytes"] == 2 * array
    assert result["output_bytes"] == array
    assert result["alias_bytes"] == 0
    assert result["flops"] == 64 * 65536
    assert result["bytes_accessed"] == 3 * array


@pytest.mark.slow
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_table_of_devices_has_the_compilers_own_limits(compiler, topology):
    result, _ = compiler.compile(SUM.format(n=400_000), topology)
    limit = program.parse_memory_error(result["error"])[1]
    device = find_target(topology).device
    assert limit == pytest.approx(DEVICES[device.name].memory_bytes, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v3:2x2", "v3:4x4", "v3:16x16", "v5e:4x4"])
def test_a_sum_over_replicas_is_compiled_for_the_whole_slice(compiler, topology):
    replicas = compiler.count_replicas(topology)
    groups = ", ".join(map(str, range(replicas)))
    text = SUM_OVER_REPLICAS.format(groups=groups, n=replicas)
    result, _ = compiler.compile(text, topology)
    assert result["replicas"] == replicas
    assert result["collectives"]["count"] == 1
    assert result["collectives"]["bytes_by_dtype"] == {"bf16": 2 * 1024**2}


@pytest.mark.slow
def test_a_program_with_replaced_operations_compiles(compiler):
    result, _ = compiler.compile(program.make_pure_stablehlo(LINEAR), "v3:2x2")
    assert "error" not in result


@pytest.mark.slow
def test_an_unknown_custom_call_is_reported(compiler):
    result, _ = compiler.compile(CUSTOM_CALL.replace("@Sharding", "@none"), "v3:2x2")
    found = report.make_report(
        result, CUSTOM_CALL, device=device_named("tpu_v3"), batch=8
    )
    assert found["fits"] is None
    assert found["unsupported_operations"] == ["nobody"]


@pytest.mark.slow
def test_an_unknown_topology_is_rejected(compiler):
    with pytest.raises(ValueError, match="`topology` must be one"):
        compiler.compile(SUM.format(n=64), "v3:999x7")
    for topology in REPLICAS:
        assert compiler.count_replicas(topology) == REPLICAS[topology]
    with pytest.raises(ValueError, match="`topology` must be one"):
        compiler.count_replicas("v3:999x7")
