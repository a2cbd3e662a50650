"""Shim: `vit_scaling.commands.predict` from a checkout."""

# SPDX-License-Identifier: Apache-2.0
from vit_scaling.commands.predict import main

raise SystemExit(main())
