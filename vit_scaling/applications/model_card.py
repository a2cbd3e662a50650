"""The model card (README.md) of a folder of exported weights."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_scaling.applications.formats.vit_weights import ViTWeights, fitting_shapes
from vit_scaling.run_record import RunRecord

EVENTS = ("train", "settings", "roll_back", "diverged")  # Rows without an evaluation.


def write_card(
    title: str, weights: ViTWeights, load_with: str, *, library: str, source: str
) -> str:
    """Return the text of a model card: data, settings, results, preprocessing, use.

    Args:
        title: Name of the model.
        weights: The weights and their record.
        load_with: Python that loads the folder.
        library: "transformers" or "timm".
        source: Where the weights come from; of a run's folder, the last results and the
            configuration are included.
    """
    record = weights.record or RunRecord((), (1, 1))
    run = epath.Path(source)
    results = last_results(run / "metrics.jsonl")
    config = run / "config.gin"
    sections = {
        "Model": _table(_model_facts(weights)),
        "Training data": _table(_data_facts(record, run / "settings.json")),
        "Results": _table(results) if results else "Not recorded.",
        "Preprocessing": _preprocessing(record),
        "Use": f"```python\nimport {library}\n\n{load_with}\n```",
        "Settings": "Not recorded.",
    }
    if config.is_file():
        sections["Settings"] = f"```\n{config.read_text(encoding='utf-8').strip()}\n```"
    header = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: "
        + ("image-classification" if _classes(weights) else "image-feature-extraction"),
        "tags: [vision-transformer, vit_scaling]",
        "---",
        f"# {title}",
    ]
    body = [f"## {name}\n\n{text}" for name, text in sections.items()]
    return "\n".join(header) + "\n\n" + "\n\n".join(body) + "\n"


def last_results(metrics: epath.Path) -> dict[str, Any]:
    """Return the last value of every metric in a run's metrics.jsonl; {} without it."""
    if not metrics.is_file():
        return {}
    rows: dict[str, Mapping[str, Any]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] not in EVENTS:
            rows[row["kind"]] = row
    return {
        f"{kind}/{name} (step {row['step']})": f"{value:.4g}"
        for kind, row in rows.items()
        for name, value in row.items()
        if name not in ("step", "time", "seconds") and isinstance(value, int | float)
    }


def _classes(weights: ViTWeights) -> int:
    return weights.arguments.get("classes") or 0


def _model_facts(weights: ViTWeights) -> dict[str, Any]:
    shape, arguments = weights.shape, weights.arguments
    size = arguments["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "architecture": "Vision Transformer",
        "named shape": fitting_shapes(shape),
        "sizes": f"width {shape.width}, {shape.depth} blocks, {shape.heads} heads, MLP "
        f"{shape.mlp_width}, patches of {shape.patch} pixels",
        "pooling": arguments["head"],
        "images": f"{height}x{width} pixels",
        "classes": _classes(weights) or "none (features)",
        "parameters": f"{sum(value.size for value in weights.variables.values()):,}",
    }


def _data_facts(record: RunRecord, settings: epath.Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if settings.is_file():
        recorded = json.loads(settings.read_text(encoding="utf-8"))
        facts = {
            name: value
            for name, value in recorded.values()
            if name in ("TRAIN_PATTERN", "the training data")
        }
    elif record.train_images:
        facts["images"] = f"{record.train_images:,}"
    if record.class_names:
        facts["class names"] = ", ".join(record.class_names[:20]) + (
            ", …" if len(record.class_names) > 20 else ""
        )
    if record.initial_weights:
        facts["started from"] = record.initial_weights.get("source")
    return facts or {"images": "not recorded"}


def _preprocessing(record: RunRecord) -> str:
    facts = {
        "value of pixels 0 and 255": record.value_range,
        "resizing": record.preprocess or "not supported: see the source",
        "side before the crop": record.resize or "none",
        "filter": record.interpolation,
        "loss, which decides probabilities": record.loss,
    }
    if record.interpolation is None:
        facts["filter"] = (
            "the authors' (by areas before a central crop, else bilinear without "
            "anti-aliasing); the configuration has the closest, bilinear"
        )
    return _table(facts)


def _table(facts: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {str(value).strip()} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def title_of(output_dir: epath.PathLike) -> str:
    """Return a folder's name as the title of its model."""
    return epath.Path(os.path.abspath(output_dir)).name
