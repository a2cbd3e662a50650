"""Small programs lowered by TensorFlow, and recorded results of the compiler."""
# SPDX-License-Identifier: Apache-2.0

import json
import re
from collections import Counter
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"

# Errors of libtpu 0.0.42.1 for a v3 core: for a sum of two arrays of 9.8 GiB, and for
# a custom call that is not registered.
TOO_LARGE = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (29.30G) exceeds available HBM (15.48G)."
)
NOT_KNOWN = "INVALID_ARGUMENT: Custom emitter for nobody not found\n"

# A linear model's step as TensorFlow 2.20 lowered it, less most of its lines.
LINEAR = """\
#loc1 = loc("x.32")
module @a_inference__lambda__39__.48 attributes {mhlo.input_output_alias = []} {
  func.func private @Mean_reduction.31(%arg0: tensor<f32> loc("x.32"), \
%arg1: tensor<f32> loc("y.33")) -> tensor<f32> {
    %0 = stablehlo.add %arg0, %arg1 : tensor<f32> loc(#loc3)
    return %0 : tensor<f32> loc(#loc)
  } loc(#loc)
  func.func @main(%arg0: tensor<4x3xbf16> loc("XLA_Args"), %arg1: tensor<3x2xf32> \
loc("XLA_Args"), %arg2: tensor<i32> loc("XLA (args)")) -> (tensor<3x2xf32>) {
    %24 = stablehlo.add %arg1, %arg1 : tensor<3x2xf32> loc(#loc29)
    %26 = mhlo.copy %24 : tensor<3x2xf32> loc(#loc15)
    return %26 : tensor<3x2xf32> loc(#loc)
  } loc(#loc)
} loc(#loc)
#loc = loc(unknown)
#loc3 = loc("add.34")
#loc15 = loc("XLA_Retvals")
#loc29 = loc(fused[#loc3, #loc15])
"""

CUSTOM_CALL = """\
module @step {
  func.func @main(%arg0: tensor<8xf32>) -> tensor<8xf32> {
    %0 = stablehlo.custom_call @nobody(%arg0) : (tensor<8xf32>) -> tensor<8xf32>
    %1 = stablehlo.custom_call @Sharding(%0) : (tensor<8xf32>) -> tensor<8xf32>
    return %1 : tensor<8xf32>
  }
}
"""

# Parts of programs of libtpu 0.0.42.1 (ViT, eight v3 cores), most of each left out.
HLO = """\
HloModule step, is_scheduled=true
%region_1.2 (a.1: bf16[], b.1: bf16[]) -> bf16[] {
  %a.1 = bf16[]{:T(512)} parameter(0)
  ROOT %add.1 = bf16[]{:T(512)} add(%a.1, %b.1)
}
%all-reduce-scatter (input: bf16[1664,8192]) -> bf16[208,8192] {
  %input = bf16[1664,8192]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.118 = bf16[1664,8192]{1,0:T(8,128)(2,1)} all-reduce(%input), \
replica_groups={}, to_apply=%region_1.2
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %all-reduce.2 = (bf16[16,16,3,192]{3,0,2,1:T(8,128)(2,1)}, \
/*index=1*/f32[192]{0:T(512)}) all-reduce(%fusion.1, %fusion.2), to_apply=%region_1.2
  %get-tuple-element.3 = f32[192]{0:T(512)} get-tuple-element(%all-reduce.2), index=1
}
"""
# Two asynchronous collectives: work runs during the first only.
ASYNCHRONOUS = """\
ENTRY %main (p: f32[64]) -> f32[64] {
  %all-reduce-start.1 = f32[64]{0} all-reduce-start(%p), to_apply=%region_1.2
  %fusion.1 = f32[64]{0} fusion(%p), kind=kLoop, calls=%fused
  %all-reduce-done.1 = f32[64]{0} all-reduce-done(%all-reduce-start.1)
  %all-gather-start.2 = (f32[8]{0}, f32[64]{0}) all-gather-start(%q), dimensions={0}
  %bitcast.2 = f32[64]{0} bitcast(%p)
  %all-gather-done.2 = f32[64]{0} all-gather-done(%all-gather-start.2)
}
"""


def recorded(name: str) -> dict:
    """Return the recorded result of libtpu for a program."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def count_operations(text: str) -> Counter:
    """Count the operations of a program by name."""
    return Counter(re.findall(r"(?<==\s)\"?(\w+\.\w+)", text))
