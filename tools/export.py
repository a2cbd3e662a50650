"""Run `vit_scaling.commands.export`, which is installed as `vit-scaling-export`."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.export import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
