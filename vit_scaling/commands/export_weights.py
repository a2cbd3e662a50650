"""Write a model's weights for big_vision, timm or Hugging Face's transformers."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags, export the weights and show how the other project loads them."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument_group("files").add_argument
    add("--source", required=True, help=".keras, run folder, or any importable file")
    add(
        "--output",
        required=True,
        help=".npz: big_vision; .safetensors: timm; with --format a new folder",
    )
    add(
        "--format",
        choices=("huggingface", "timm"),
        help="write a folder that transformers or timm loads, with a model card",
    )
    cli.add_averages_flag(parser.add_argument)
    add(
        "--adapter",
        action="store_true",
        help="only what a run with --lora_rank trained, by this package's paths",
    )
    add = parser.add_argument_group("facts that the source may not state").add_argument
    add("--shape", help="shape of the source; default: the file's")
    add("--heads", type=int, help="attention heads, if the source does not state them")
    add("--gelu", choices=("tanh", "erf"), help="default: as the source computes it")
    add(
        "--norm_epsilon", type=float, help="epsilon of the norms; default: the source's"
    )
    return cli.run(parser, argv, _export, _show)


def _export(args: Any) -> Mapping[str, Any]:
    if args.adapter:
        from vit_scaling.applications.adapter_files import export_adapter

        report = export_adapter(args.source, args.output, averages=args.averages)
        load_with = f"adapter_files.load_adapter(model, {args.output!r})"
        return {**report, "layout": "adapter", "assumed": [], "load_with": load_with}
    from vit_scaling.applications import addresses

    addresses.resolve(
        args.source, shape=args.shape
    )  # Raises before TensorFlow is imported.
    from vit_scaling.applications import model_folders, weights

    read = weights.read_weights(
        args.source,
        shape=args.shape,
        heads=args.heads,
        approximate_gelu=None if args.gelu is None else args.gelu == "tanh",
        norm_epsilon=args.norm_epsilon,
        averages=args.averages,
    )
    if args.format is None:
        report = weights.export_weights(read, args.output)
    else:
        report = model_folders.export_folder(
            read, args.output, kind=args.format, source=args.source
        )
    return {"output": args.output, "assumed": list(read.assumed), **report}


def _show(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['output']}: {result['arrays']} arrays, layout of {result['layout']}",
        *(f"  assumed: {fact}" for fact in result["assumed"]),
        f"load with {result['load_with']}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
