"""Turn published weights into a `.keras` model or this package's own `.npz`."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags, import the weights and report the use of every array."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument_group("files").add_argument
    add(
        "--source",
        required=True,
        help="path, published name, hf://OWNER/NAME, augreg:NAME or other address",
    )
    add("--output", required=True, help="file to write: .keras or .npz")
    cli.add_averages_flag(parser.add_argument)
    add = parser.add_argument_group("facts that the source may not state").add_argument
    add("--shape", help="shape the file must have, such as B/16; default: the file's")
    add("--head", help="token, gap, map or none; default: the file's")
    add(
        "--heads",
        type=int,
        help="attention heads, if neither file nor shape gives them",
    )
    add(
        "--image_size",
        type=cli.image_size,
        metavar="SIDE|HEIGHTxWIDTH",
        help="pixels of the model written; default: the file's",
    )
    add(
        "--source_image_size",
        type=cli.image_size,
        metavar="SIDE|HEIGHTxWIDTH",
        help="pixels that the file's positions are for; default: as configured",
    )
    add("--gelu", choices=("tanh", "erf"), help="default: as the source computes it")
    add(
        "--norm_epsilon", type=float, help="epsilon of the norms; default: the source's"
    )
    add("--ignore", help="regular expression of arrays that may be left out")
    add("--parity_images", type=int, default=2, help="0: no comparison of outputs")
    return cli.run(parser, argv, _import, _show)


def _import(args: Any) -> Mapping[str, Any]:
    from vit_scaling.applications import addresses

    addresses.resolve(
        args.source, shape=args.shape
    )  # Raises before TensorFlow is imported.
    from vit_scaling.applications.formats.vit_weights import ReadOptions
    from vit_scaling.applications.parity import import_weights

    options = ReadOptions(
        shape=args.shape,
        head=args.head,
        heads=args.heads,
        source_image_size=args.source_image_size,
        approximate_gelu=None if args.gelu is None else args.gelu == "tanh",
        norm_epsilon=args.norm_epsilon,
        ignore=args.ignore,
        averages=args.averages,
    )
    return import_weights(
        args.source,
        args.output,
        options=options,
        image_size=args.image_size,
        parity_images=args.parity_images,
    )


def _show(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['output']}: {result['parameters']:,} parameters, from the layout of "
        f"{result['layout']}",
        f"model: {result['model']}",
        f"arrays used: {len(result['used'])}",
    ]
    lines += [
        f"  left out: {name}: {reason}" for name, reason in result["left_out"].items()
    ]
    lines += [f"  zero, not in the file: {path}" for path in result["filled"]]
    lines += [f"  assumed: {fact}" for fact in result["assumed"]]
    parity = result["parity"]
    if parity is not None:
        lines.append(
            f"outputs on {parity['images']} images differ from the source's by at "
            f"most {parity['largest_difference']:.3g} (largest output "
            f"{parity['largest_output']:.3g}); not compared: "
            f"{', '.join(parity['not_compared'])}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
