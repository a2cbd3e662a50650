"""Compile a program with XLA's GPU compiler; run by the Python that has jax[cuda12].

PYTHON gpu_worker.py PROGRAM.mlir TOPOLOGY RESULT.json OPTIONS OPTIMIZED.txt
PYTHON gpu_worker.py --topology TOPOLOGY RESULT.json   (only counts its replicas)
PYTHON gpu_worker.py --versions                        (prints the packages' versions)

It imports nothing of this package, because neither that nor TensorFlow is installed in
its environment. No GPU is attached: the compiler needs only its description, and does
not measure which of several kernels is the fastest (autotuning is off).
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple


class Description(NamedTuple):
    """What the compiler needs to know of a GPU.

    The values of H100, H200 and A100 are those of the specifications in OpenXLA's
    repository (xla/backends/gpu/target_config/specs); those of L4 and RTX 4090 are
    NVIDIA's: the Ada white paper, the L4 datasheet, and the CUDA programming guide's
    table of compute capability 8.9.

    Attributes:
        capability: Compute capability.
        cores: Streaming multiprocessors.
        lanes: Float32 units of a multiprocessor.
        threads: Threads that a multiprocessor holds.
        shared: Bytes of shared memory of a multiprocessor.
        l2: Bytes of the L2 cache.
        clock: GHz.
        bandwidth: Bytes per second to and from the memory.
        memory: Bytes.
        name: The manufacturer's.
    """

    capability: tuple[int, int]
    cores: int
    lanes: int
    threads: int
    shared: int
    l2: int
    clock: float
    bandwidth: int
    memory: int
    name: str


# fmt: off
GPUS = {
    "h100": Description((9, 0), 132, 128, 2048, 233472, 52428800, 1.98, 3352320000000,
                        84942979072, "NVIDIA H100 80GB HBM3"),
    "h200": Description((9, 0), 132, 128, 2048, 233472, 52428800, 1.98, 4800000000000,
                        151397597184, "NVIDIA H200 141GB HBM3e"),
    "a100_80gb": Description((8, 0), 108, 64, 2048, 167936, 41943040, 1.41,
                             2039040000000, 85100068864, "NVIDIA A100-SXM4-80GB"),
    "a100_40gb": Description((8, 0), 108, 64, 2048, 167936, 41943040, 1.41,
                             1555200000000, 42297786368, "NVIDIA A100-SXM4-40GB"),
    "l4": Description((8, 9), 58, 128, 1536, 102400, 50331648, 2.04, 300000000000,
                      24000000000, "NVIDIA L4"),
    "rtx_4090": Description((8, 9), 128, 128, 1536, 102400, 75497472, 2.52,
                            1008000000000, 25769803776, "NVIDIA GeForce RTX 4090"),
}
# fmt: on
ENVIRONMENT = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # No driver here to compare versions with.
    # Autotuning would need the device. Matrix products are left to cuBLAS: without
    # autotuning the compiler finds no tiles for some of its own kernels.
    "XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false",
    "JAX_PLATFORMS": "cpu",
}


def read_versions() -> dict[str, str]:
    """Return the versions of the packages on which a result depends."""
    names = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt")
    return {name: metadata.version(name) for name in names}


def parse_topology(topology: str) -> tuple[Description, int]:
    """Return the GPU of a topology such as "h100" or "h100x8", and their number.

    Raises:
        ValueError: The GPU is unknown, or the number is not 1 to 8.
    """
    match = re.fullmatch(r"(\w+?)(?:x([1-8]))?", topology)
    if match is None or match[1] not in GPUS:
        raise ValueError(f"known: {', '.join(GPUS)}, each with x2 to x8")
    return GPUS[match[1]], int(match[2] or 1)


def target_config(gpu: Description) -> str:
    """Return a GPU as a GpuTargetConfigProto in text form."""
    major, minor = gpu.capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared}
  shared_memory_per_block_optin: {gpu.shared - 1024}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth}
  l2_cache_size: {gpu.l2}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {gpu.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{gpu.name}"
"""


def compile_program(
    program: str, topology: str, options: str = "{}", optimized: str | None = None
) -> dict[str, Any]:
    """Compile a StableHLO file; return sizes and costs, or "error" and its "kind".

    Args:
        program: Path of the StableHLO text; "--topology" compiles none.
        topology: Such as "h100x8". The program is compiled for all its GPUs, each of
            which runs one replica.
        options: Options of the compiler, by name, as JSON.
        optimized: File for the compiled program as text; None writes none.
    """
    os.environ.update(ENVIRONMENT)
    versions = read_versions()
    try:
        gpu, replicas = parse_topology(topology)
    except ValueError as error:
        return {"kind": "topology", "error": str(error), "versions": versions}
    result = {"device_kind": gpu.name, "replicas": replicas, "versions": versions}
    if program == "--topology":
        return result
    # Private modules, because no public function of jax compiles given StableHLO.
    import numpy
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax.experimental import topologies
    from jaxlib._jax import DeviceList
    from jaxlib.mlir import ir

    devices = topologies.get_topology_desc(
        platform="cuda", target_config=target_config(gpu), topology=f"1x1x{replicas}"
    ).devices
    compile_options = compiler.get_compile_options(
        num_replicas=replicas,
        num_partitions=1,
        device_assignment=numpy.array([[device.id] for device in devices]),
        env_options_overrides=json.loads(options),
    )
    try:
        with mlir.make_ir_context():
            module = ir.Module.parse(Path(program).read_text(encoding="utf-8"))
            client = devices[0].client
            compiled = client.compile(
                module, DeviceList(tuple(devices)), compile_options
            )
            source = str(module)
    except Exception as error:
        return {**result, "kind": "compile", "error": str(error)}
    text = compiled.hlo_modules()[0].to_string()
    if optimized is not None:
        Path(optimized).write_text(text, encoding="utf-8")
    return {**result, **_sizes(compiled), **_costs(source, compiled)}


def _sizes(compiled: Any) -> Mapping[str, int]:
    memory = compiled.get_compiled_memory_stats()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }


def _costs(source: str, compiled: Any) -> Mapping[str, float]:
    """Return operations and bytes, by XLA's own cost analysis.

    The GPU client has none. Operations are counted in the program as it was given,
    since matrix products become library calls whose operations the analysis does not
    know; bytes are counted in the compiled program, whose fused operations keep
    intermediate values out of the memory.
    """
    import jax
    from jax._src.lib import xla_client

    cpu = jax.devices("cpu")[0].client
    given = xla_client._xla.mlir.mlir_module_to_xla_computation(source)
    analyse = xla_client._xla.hlo_module_cost_analysis
    before = analyse(cpu, given.get_hlo_module())
    after = analyse(cpu, compiled.hlo_modules()[0])
    return {
        "flops": before["flops"],
        "transcendentals": before.get("transcendentals", 0.0),
        "bytes_accessed": after["bytes accessed"],
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
