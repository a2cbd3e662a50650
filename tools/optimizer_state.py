"""Run the command `vit-scaling optimizer-state` by its file."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.optimizer_state import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
