"""Run `vit_scaling.commands.inspect_tfrecords`, which is installed as `vit-scaling-inspect-tfrecords`."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.inspect_tfrecords import main

if __name__ == "__main__":  # Worker processes import this file too.
    raise SystemExit(main())
