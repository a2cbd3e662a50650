"""Run the command `vit-scaling vtab` by its file."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.vtab import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
