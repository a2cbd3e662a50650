"""Compile a program with the TPU compiler; run by the Python that has jax and libtpu.

PYTHON tpu_worker.py PROGRAM.mlir TOPOLOGY RESULT.json [OPTIMIZED.txt]
PYTHON tpu_worker.py --topology TOPOLOGY RESULT.json   (only checks the topology)
PYTHON tpu_worker.py --versions                        (prints the packages' versions)

It imports nothing of this package, because neither that nor TensorFlow is installed in
its environment. No TPU is attached: the compiler needs only the topology's description.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # Do not ask a cloud's metadata server for the machine.
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v3-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # No TPU is locked, so several compilations may run at the same time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def read_versions() -> dict[str, str]:
    """Return the versions of the packages on which a result depends."""
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}


def compile_program(
    program: str, topology: str, optimized: str | None = None
) -> dict[str, Any]:
    """Compile a StableHLO file; return sizes and costs, or "error" and its "kind".

    Args:
        program: Path of the StableHLO text; "--topology" compiles none.
        topology: Such as "v3:2x2". The program is compiled for its first device.
        optimized: File for the compiled program as text; None writes none.
    """
    os.environ.update(ENVIRONMENT)
    # Private modules, because no public function of jax compiles given StableHLO.
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax.experimental import topologies
    from jaxlib._jax import DeviceList
    from jaxlib.mlir import ir

    versions = read_versions()
    try:
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=topology
        ).devices
    except Exception as error:
        return {"kind": "topology", "error": str(error), "versions": versions}
    device = devices[0]
    result = {"device_kind": device.device_kind, "versions": versions}
    if program == "--topology":
        return result
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    try:
        with mlir.make_ir_context():
            module = ir.Module.parse(Path(program).read_text(encoding="utf-8"))
            compiled = device.client.compile(module, DeviceList((device,)), options)
    except Exception as error:
        return {**result, "kind": "compile", "error": str(error)}
    if optimized is not None:
        text = compiled.hlo_modules()[0].to_string()
        Path(optimized).write_text(text, encoding="utf-8")
    return {**result, **_sizes_and_costs(compiled)}


def _sizes_and_costs(compiled: Any) -> Mapping[str, Any]:
    memory, cost = compiled.get_compiled_memory_stats(), compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flops": cost["flops"],
        "transcendentals": cost.get("transcendentals", 0.0),
        "bytes_accessed": cost["bytes accessed"],
    }


def main(argv: list[str]) -> int:
    """Write the result as JSON; return the exit code."""
    if argv == ["--versions"]:
        print(json.dumps(read_versions()))
        return 0
    program, topology, path, *optimized = argv
    result = compile_program(program, topology, *optimized)
    Path(path).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
