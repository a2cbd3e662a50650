"""Compile a program with the TPU compiler; run by the Python that has jax and libtpu.

PYTHON tpu_worker.py PROGRAM.mlir TOPOLOGY RESULT.json OPTIONS OPTIMIZED.txt
PYTHON tpu_worker.py --topology TOPOLOGY RESULT.json   (only counts its replicas)
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
    "XLA_FLAGS": "",  # The user's would change results, which are cached by program.
    "TPU_ACCELERATOR_TYPE": "v3-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # No TPU is locked, so several compilations may run at the same time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def read_versions() -> dict[str, str]:
    """Return the versions of the packages on which a result depends."""
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}


def find_devices(topology: str) -> tuple[Any, ...]:
    """Return the devices of a topology: the cores of v2 and v3, the chips of others.

    Raises:
        Exception: libtpu does not support the topology.
    """
    from jax.experimental import topologies

    # Without it, a v4 chip is two devices with half of its memory each.
    config = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, **config
    )
    return tuple(found.devices)


def compile_program(
    program: str, topology: str, options: str = "{}", optimized: str | None = None
) -> dict[str, Any]:
    """Compile a StableHLO file; return sizes and costs, or "error" and its "kind".

    Args:
        program: Path of the StableHLO text; "--topology" compiles none.
        topology: Such as "v3:2x2". The program is compiled for all its devices, each of
            which runs one replica.
        options: Options of the compiler, by name, as JSON.
        optimized: File for the compiled program as text; None writes none.
    """
    os.environ.update(ENVIRONMENT)
    # Private modules, because no public function of jax compiles given StableHLO.
    import numpy
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jaxlib._jax import DeviceList
    from jaxlib.mlir import ir

    versions = read_versions()
    try:
        devices = find_devices(topology)
    except Exception as error:
        return {"kind": "topology", "error": str(error), "versions": versions}
    result = {
        "device_kind": devices[0].device_kind,
        "replicas": len(devices),
        "versions": versions,
    }
    if program == "--topology":
        return result
    compile_options = compiler.get_compile_options(
        num_replicas=len(devices),
        num_partitions=1,
        device_assignment=numpy.array([[device.id] for device in devices]),
        env_options_overrides={
            name: _parse_option(value) for name, value in json.loads(options).items()
        },
    )
    try:
        with mlir.make_ir_context():
            module = ir.Module.parse(Path(program).read_text(encoding="utf-8"))
            client = devices[0].client
            compiled = client.compile(module, DeviceList(devices), compile_options)
    except Exception as error:
        return {**result, "kind": "compile", "error": str(error)}
    if optimized is not None:
        text = compiled.hlo_modules()[0].to_string()
        Path(optimized).write_text(text, encoding="utf-8")
    return {**result, **_sizes_and_costs(compiled)}


def _parse_option(text: str) -> Any:
    """Return an option's value in the type that the compiler requires."""
    try:
        return json.loads(text)
    except ValueError:
        return text


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
    program, topology, path, *more = argv
    result = compile_program(program, topology, *more)
    Path(path).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
