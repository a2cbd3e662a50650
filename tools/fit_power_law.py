"""Shim: `vit_scaling.commands.fit_power_law` from a checkout."""

# SPDX-License-Identifier: Apache-2.0
from vit_scaling.commands.fit_power_law import main

raise SystemExit(main())
