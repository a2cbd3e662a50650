"""Every published name gives its authors' outputs: a block of each, random weights.

`peers/make_published_fixtures.py` ran timm's, vision_transformer's and big_vision's own
models; the weights are drawn again here, by the same function.
"""
# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path

import numpy as np
import pytest

import vit_scaling
from tests.applications.cases import FOLDER
from tests.applications.peers.make_published_fixtures import draw, draw_images
from vit_scaling import array_files
from vit_scaling.applications import addresses, downloads, published
from vit_scaling.applications.published import PublishedWeights
from vit_scaling.modeling.shapes import shape_named

FIXTURES = json.loads(Path(FOLDER, "published.json").read_text(encoding="utf-8"))
TIMM = "hf://timm/"
TABLE = published.read_table()


def family_of(weights: PublishedWeights) -> str:
    return weights.name.partition("-")[0].replace("siglip2", "siglip")


def fixture_key(weights: PublishedWeights) -> str:
    if weights.address.startswith(TIMM):
        return weights.address.removeprefix(TIMM)
    return f"{family_of(weights)}:{weights.shape}:{weights.image_size}"


def all_cases() -> list:
    """Return every row; only the first of each family and shape is fast."""
    seen, cases = set(), []
    for weights in TABLE:
        kind = family_of(weights), weights.shape, weights.classes, "reg" in weights.name
        marks = [pytest.mark.slow] if kind in seen else []
        seen.add(kind)
        cases.append(pytest.param(weights, id=weights.name, marks=marks))
    return cases


def write_download(weights, fixture, folder: Path, monkeypatch) -> None:
    """Put random weights where the download of the name would be."""
    arrays = draw(fixture["arrays"], fixture_key(weights))
    if weights.address.startswith(downloads.HUB):
        array_files.write_safetensors(str(folder / "model.safetensors"), arrays, {})
        config = json.dumps(fixture["config"])
        (folder / "config.json").write_text(config, encoding="utf-8")
        monkeypatch.setattr(downloads, "fetch_repository", lambda _: str(folder))
        return
    monkeypatch.setenv("KERAS_HOME", str(folder))
    file = addresses.resolve(weights.name).removeprefix("gs://")
    path = folder / "vit_scaling" / file
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)


@pytest.mark.filterwarnings("ignore:.*assumed")  # The reader tells what it assumes.
@pytest.mark.parametrize("weights", all_cases())
def test_name_gives_the_outputs_of_its_authors(weights, tmp_path, monkeypatch):
    fixture = FIXTURES[fixture_key(weights)]
    write_download(weights, fixture, tmp_path, monkeypatch)
    model = vit_scaling.load(weights.name)
    side = weights.image_size
    assert model.input_shape == (None, side, side, 3)
    shape = shape_named(weights.shape)
    width = weights.classes or shape.width
    assert model.output_shape == (None, width) == (None, fixture["width"])
    output = np.asarray(model(draw_images(side)))[0, : len(fixture["output"])]
    np.testing.assert_allclose(output, fixture["output"], atol=2e-5, rtol=0)
