"""Say what is installed, which devices there are, what clashes and what to install."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli, installation


def main(argv: Sequence[str] | None = None) -> int:
    """Examine the environment; the exit code is 0 only if nothing clashes."""
    made = cli.make_parser(__doc__ or "")
    made.add_argument(
        "--no_devices",
        action="store_true",
        help="do not start TensorFlow: look at the installed packages only",
    )
    found: dict[str, Any] = {}

    def examine(arguments: argparse.Namespace) -> Mapping[str, Any]:
        versions = installation.installed_versions()
        found.update(
            python=platform.python_version(),
            versions=versions,
            devices=None if arguments.no_devices else installation.devices(),
            clashes=installation.clashes(versions, sys.version_info[:2], os.environ),
        )
        return found

    code = cli.run(made, argv, examine, show)
    return code or int(bool(found["clashes"]) or "error" in (found["devices"] or {}))


def show(result: Mapping[str, Any]) -> str:
    """Return the findings as text."""
    rows = [("python", result["python"]), *result["versions"].items()]
    parts = [cli.table([(n, v or "not installed") for n, v in rows], ("", "version"))]
    devices = result["devices"] or {}
    parts += [f"{kind}: {', '.join(names)}" for kind, names in devices.items()]
    for clash in result["clashes"]:
        parts.append(f"clash: {clash['what']}\n  mend: {clash['mend']}")
    if not result["clashes"]:
        parts.append("Nothing clashes.")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
