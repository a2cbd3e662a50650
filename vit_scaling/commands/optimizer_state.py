"""Print what each optimizer's state costs for a shape; nothing is allocated (§3.4)."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli
from vit_scaling.modeling.head_specs import POOLING_HEADS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    made = cli.make_parser(__doc__ or "")
    made.add_argument("--shapes", default="B/16,g/14,G/14", help="names, by commas")
    made.add_argument("--head", default="map", choices=POOLING_HEADS)
    made.add_argument("--image_size", type=int, default=224, help="side, pixels")
    made.add_argument("--classes", type=int, default=1000, help="classifier's width")
    made.add_argument(
        "--average", action="store_true", help="with a Polyak average of the weights"
    )
    return cli.run(made, argv, _costs, _show)


def _costs(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the rows of every shape, as bytes and ratios."""
    from vit_scaling.modeling.shapes import shape_named
    from vit_scaling.modeling.variables import vit_variables
    from vit_scaling.optimization.state_size import cost_table

    result = {}
    for name in arguments.shapes.split(","):
        weights = vit_variables(
            shape_named(name),
            head=arguments.head,
            image_size=arguments.image_size,
            classes=arguments.classes,
        )
        costs = cost_table(weights.items(), average=arguments.average)
        result[name] = [
            {**cost._asdict(), "total": cost.total, "state_over_weights": cost.ratio}
            for cost in costs
        ]
    return result


def _show(result: Mapping[str, Any]) -> str:
    from vit_scaling.optimization.state_size import StateCost, cost_text

    fields = StateCost._fields
    return "\n\n".join(
        f"{name}, GiB\n"
        + cost_text(StateCost(*(row[field] for field in fields)) for row in rows)
        for name, rows in result.items()
    )


if __name__ == "__main__":
    sys.exit(main())
