"""Run the command `vit-scaling data write` by its file."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.write_tfrecords import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
