"""Shim: `vit_scaling.commands.export` from a checkout."""

# SPDX-License-Identifier: Apache-2.0
from vit_scaling.commands.export import main

raise SystemExit(main())
