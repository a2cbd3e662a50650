"""The record that comes with weights: class names, preprocessing, results of a run."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats import preprocessing_configs, sidecar_files
from vit_scaling.applications.formats.native_npz import RECORD_KEY
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.applications.sources import KERAS, RUN, Source
from vit_scaling.array_files import Arrays
from vit_scaling.io_files import json_text
from vit_scaling.run_record import RunRecord, find_run_record, record_from_json

# Metadata of a .safetensors, array of an .npz, and (with .json) member of a .keras.
KEY = RECORD_KEY
_MEMBER = f"{KEY}.json"


def with_record(
    weights: ViTWeights, source: Source, arrays: Arrays, metadata: Mapping[str, str]
) -> ViTWeights:
    """Return weights with the record that their source has.

    It is the run's, the one that this package wrote into a file, or what timm's or
    transformers' configuration defines. Without any of them pixels are in [-1, 1], as
    in this package and big_vision; for others' files `preprocessing_assumed` is True.

    Args:
        weights: Weights that were read from the source.
        source: The file or folder.
        arrays: The file's arrays.
        metadata: A .safetensors file's metadata.

    Raises:
        ValueError: A configuration or record is damaged.
    """
    size = weights.arguments["image_size"]
    size = (size, size) if isinstance(size, int) else tuple(size)
    record = own_record(source, arrays, metadata)
    is_published = weights.layout not in ("big_vision", "vit_scaling")
    if record is None and is_published:
        record = _published_record(source.path, weights.layout, size)
    assumed = record is None and is_published
    record = (record or RunRecord((), size)).at_size(size)
    names = record.class_names or _class_names(source.path)
    if len(names) != weights.arguments.get("classes"):
        names = ()  # The classifier was left out or replaced.
    record = dataclasses.replace(record, class_names=names)
    return dataclasses.replace(weights, record=record, preprocessing_assumed=assumed)


def own_record(
    source: Source, arrays: Arrays | None = None, metadata: Any = None
) -> RunRecord | None:
    """Return the record of a run, or the one that this package wrote into a file.

    Args:
        source: The file or folder.
        arrays: The file's arrays, if it is one of arrays.
        metadata: A .safetensors file's metadata.
    """
    text = (metadata or {}).get(KEY)
    if source.kind == RUN:
        return find_run_record(source.path)
    if source.kind == KERAS:
        with zipfile.ZipFile(source.path) as file:
            text = file.read(_MEMBER) if _MEMBER in file.namelist() else None
    elif KEY in (arrays or {}):
        text = (arrays or {})[KEY].tobytes()
    return record_from_json(json.loads(text), source=source.path) if text else None


def add_to_keras_file(path: str, record: RunRecord) -> None:
    """Add the record to a .keras file, whose reader ignores it."""
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(_MEMBER, json_text(record.as_dict()))


def _published_record(
    path: str, layout: str, image_size: tuple[int, int]
) -> RunRecord | None:
    if layout == "timm":
        config = sidecar_files.read_config(path)
        return preprocessing_configs.record_from_timm(config, image_size)
    config = sidecar_files.read_config(path, "preprocessor_config.json")
    return preprocessing_configs.record_from_transformers(config, image_size)


def _class_names(path: str) -> tuple[str, ...]:
    """Return the names in a config.json; transformers' LABEL_0, … count as none."""
    config = sidecar_files.read_config(path)
    labels = config.get("id2label") or {}
    names = [labels[number] for number in sorted(labels, key=int)]
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        names = []
    pretrained = config.get("pretrained_cfg") or {}
    names = names or config.get("label_names") or pretrained.get("label_names") or []
    return tuple(map(str, names))
