"""Shim: `vit_scaling.commands.write_tfrecords` from a checkout."""

# SPDX-License-Identifier: Apache-2.0
from vit_scaling.commands.write_tfrecords import main

raise SystemExit(main())
