"""Tests, mirroring vit_scaling file by file; oracles are imported as tests.oracles."""
# SPDX-License-Identifier: Apache-2.0
