"""Run `vit_scaling.commands.benchmark`, which is installed as `vit-scaling-benchmark`."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.benchmark import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
