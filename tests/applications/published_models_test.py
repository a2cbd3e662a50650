"""Every published name gives its authors' outputs: a block of each, random weights.

`peers/make_published_fixtures.py` ran timm's, vision_transformer's and big_vision's own
models; the weights are drawn again here, by the same function.
"""
# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import vit_scaling
from tests.applications.cases import FOLDER
from tests.applications.peers.make_published_fixtures import draw, draw_images
from vit_scaling import array_files
from vit_scaling.applications import addresses, downloads, published
from vit_scaling.applications import vit as constructors
from vit_scaling.applications.finetuning import load_for_finetuning
from vit_scaling.applications.published import PublishedWeights
from vit_scaling.applications.weights import export_weights
from vit_scaling.commands import import_weights
from vit_scaling.modeling.shapes import shape_named
from vit_scaling.modeling.vit import vit

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
    shape = shape_named(weights.shape)
    model = vit_scaling.load(weights.name)
    side = weights.image_size
    assert model.input_shape == (None, side, side, 3)
    width = weights.classes or shape.width
    assert model.output_shape == (None, width) == (None, fixture["width"])
    output = np.asarray(model(draw_images(side)))[0, : len(fixture["output"])]
    np.testing.assert_allclose(output, fixture["output"], atol=2e-5, rtol=0)


@pytest.fixture
def imagenet_mu(tmp_path, monkeypatch):
    """A model of the smallest shape, downloaded already as its "imagenet" weights."""
    monkeypatch.setitem(published.IMAGENET_DEFAULTS, "mu/16", "augreg-ti16-224")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    model = vit("mu/16", "token", seed=3)
    kernel = model.get_layer("head").kernel
    kernel.assign(draw({"kernel": kernel.shape}, "head")["kernel"])
    file = addresses.resolve("imagenet", shape="mu/16").removeprefix("gs://")
    path = tmp_path / "vit_scaling" / file
    path.parent.mkdir(parents=True)
    export_weights(model, str(path))
    return model


def test_constructor_loads_imagenet_with_probabilities(imagenet_mu):
    model = constructors._application("ViTmu16", "mu/16")(weights="imagenet")
    images = draw_images(224)
    np.testing.assert_allclose(
        keras.ops.softmax(imagenet_mu(images)), model(images), atol=1e-6
    )


def test_fine_tuning_starts_from_imagenet_and_from_a_name(imagenet_mu):
    body = "patch_embedding/kernel"
    for source in ("imagenet", "augreg-ti16-224"):
        model = vit("mu/16", "token", classes=5, seed=1)
        start = load_for_finetuning(model, source)
        assert start.source == source and body in start.taken
        np.testing.assert_array_equal(
            model.get_layer("patch_embedding").kernel,
            imagenet_mu.get_layer("patch_embedding").kernel,
        )


def test_import_command_takes_imagenet_of_a_shape(imagenet_mu, tmp_path, capsys):
    output = str(tmp_path / "model.keras")
    flags = ["--source=imagenet", f"--output={output}", "--json"]
    assert import_weights.main(flags) == 1
    assert "no shape is given" in capsys.readouterr().err
    assert import_weights.main([*flags, "--shape=mu/16"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"]["within_tolerance"]
    images = draw_images(224)
    np.testing.assert_allclose(
        vit_scaling.load(output)(images), imagenet_mu(images), atol=1e-5
    )
