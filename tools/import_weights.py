"""Shim: `vit_scaling.commands.import_weights` from a checkout."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.import_weights import main

raise SystemExit(main())
