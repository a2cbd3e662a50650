"""Write a model as a folder that transformers or timm loads, with a model card."""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
from typing import Any

from vit_scaling import array_files, io_files
from vit_scaling.applications import model_card
from vit_scaling.applications.formats import native_npz, preprocessing_configs
from vit_scaling.applications.formats.huggingface_export import (
    is_supported,
    write_huggingface,
)
from vit_scaling.applications.formats.timm_export import write_timm_folder
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.naming import check_known

FORMATS = ("huggingface", "timm")


def export_folder(
    weights: ViTWeights, output_dir: str, *, kind: str, source: str = ""
) -> dict[str, Any]:
    """Write model.safetensors, its configurations and a model card; return a report.

    A classifier on a MAP head, which transformers' SigLIP lacks, is written as timm's
    folder: transformers loads that through timm, which must be installed.

    Args:
        weights: Weights from `read_weights`, with their record.
        output_dir: Folder to write, which must not exist yet; it appears complete.
        kind: "huggingface" or "timm".
        source: Where the weights come from, for the card; see `model_card.write_card`.

    Returns:
        `layout`, `arrays` (their number), and `load_with`: Python that loads it.

    Raises:
        ValueError: The project's classes lack a part of the model.
        FileExistsError: `output_dir` exists already.
    """
    check_known("format", kind, FORMATS)
    uses_timm = kind == "timm" or not is_supported(weights)
    exported = write_timm_folder(weights) if uses_timm else write_huggingface(weights)
    load_with = exported.load_with
    if uses_timm and kind == "huggingface":
        auto = "transformers.AutoModelForImageClassification"
        load_with = f"model = {auto}.from_pretrained('{{folder}}')  # Needs timm."
    load_with = load_with.replace("{folder}", os.fspath(output_dir))
    files = {"config.json": exported.arguments}
    if weights.record is not None and not uses_timm:
        processor = preprocessing_configs.transformers_preprocessing(weights.record)
        files["preprocessor_config.json"] = processor
    with io_files.atomic_folder(output_dir) as temporary:
        folder = pathlib.Path(temporary)
        for name, content in files.items():
            io_files.write_json(folder / name, content)
        array_files.write_safetensors(
            os.fspath(folder / "model.safetensors"),
            exported.arrays,
            {"format": "pt"} | native_npz.record_text(weights),
        )
        card = model_card.write_card(
            model_card.title_of(output_dir),
            weights,
            load_with,
            library="timm" if kind == "timm" else "transformers",
            source=source,
        )
        io_files.write_text(folder / "README.md", card)
    layout = "timm" if uses_timm else "transformers"
    return {"layout": layout, "arrays": len(exported.arrays), "load_with": load_with}
