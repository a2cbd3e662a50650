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


def recorded(name: str) -> dict:
    """Return the recorded result of libtpu for a program."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def count_operations(text: str) -> Counter:
    """Count the operations of a program by name."""
    return Counter(re.findall(r"(?<==\s)\"?(\w+\.\w+)", text))
