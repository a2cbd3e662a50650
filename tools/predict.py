"""Run `vit_scaling.commands.predict`, which is installed as `vit-scaling-predict`."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.predict import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
