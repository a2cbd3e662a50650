"""Check the installation: versions, devices, conflicts and their fixes."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli, installation
from vit_scaling.commands.gpu_installation import explain_missing_gpu, gather_facts


def main(argv: Sequence[str] | None = None) -> int:
    """Examine the environment; the exit code is 0 only without conflicts."""
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument(
        "--no_devices",
        action="store_true",
        help="check the installed packages only, without starting TensorFlow",
    )
    found: dict[str, Any] = {}

    def examine(arguments: argparse.Namespace) -> Mapping[str, Any]:
        versions = installation.installed_versions()
        conflicts = installation.find_conflicts(
            versions, sys.version_info[:2], os.environ
        )
        devices = None if arguments.no_devices else installation.devices()
        if devices and devices.get("GPU") == ["none"]:
            missing = explain_missing_gpu(gather_facts())
            conflicts += [] if missing is None else [missing]
        found.update(
            python=platform.python_version(),
            versions=versions,
            devices=devices,
            conflicts=conflicts,
        )
        return found

    code = cli.run(parser, argv, examine, show)
    return code or int(bool(found["conflicts"]) or "error" in (found["devices"] or {}))


def show(result: Mapping[str, Any]) -> str:
    """Return the findings as text."""
    rows = [("python", result["python"]), *result["versions"].items()]
    parts = [cli.table([(n, v or "not installed") for n, v in rows], ("", "version"))]
    devices = result["devices"] or {}
    parts += [f"{kind}: {', '.join(names)}" for kind, names in devices.items()]
    for conflict in result["conflicts"]:
        parts.append(f"conflict: {conflict['problem']}\n  fix: {conflict['fix']}")
    if not result["conflicts"]:
        parts.append("No conflicts.")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
