"""Scale Vision Transformers (Zhai et al., CVPR 2022); imports no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

__version__ = "0.1.0"
