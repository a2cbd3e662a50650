"""The table of published weights: complete, cited, and found by name."""
# SPDX-License-Identifier: Apache-2.0

import re

import pytest

import vit_scaling
from vit_scaling import applications
from vit_scaling.applications import addresses, downloads, published
from vit_scaling.modeling.shapes import shape_named

TABLE = published.read_table()
SOURCE = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}:[\w./-]+")
FAMILIES = ("augreg", "deit3", "dinov2", "siglip", "siglip2", "mae", "clip")


def test_table_has_every_family_and_no_name_twice():
    names = [name for w in TABLE for name in (w.name, w.authors_name) if name]
    assert len(names) == len(set(names))
    assert len(TABLE) >= 40
    assert {weights.name.partition("-")[0] for weights in TABLE} >= set(FAMILIES)
    assert any("reg" in weights.name for weights in vit_scaling.list_weights("dinov2*"))
    assert vit_scaling.list_weights("*so400m*")


@pytest.mark.parametrize("weights", TABLE, ids=lambda weights: weights.name)
def test_row_is_complete_and_cites_every_fact(weights):
    for source in (weights.address_source, weights.licence_source, weights.top1_source):
        assert SOURCE.fullmatch(source)
    assert weights.licence in ("Apache-2.0", "CC-BY-4.0", "CC-BY-NC-4.0", "MIT")
    assert 50 < weights.top1 < 100
    kinds = ("classifier", "linear probe", "zero-shot", "fine-tuned")
    assert weights.evaluation in kinds
    assert (weights.classes == 1000) or weights.evaluation != "classifier"
    assert shape_named(weights.shape).grid(weights.image_size)
    address = addresses.resolve(weights.name)
    if address.startswith("hf://"):
        assert re.fullmatch(r"hf://[\w.-]+/[\w.-]+", address)
    else:
        assert re.fullmatch(r"gs://[\w./-]+\.npz", address)


def test_every_listed_shape_has_its_constructor():
    names = {f"ViT{re.sub('[/-]', '', weights.shape)}" for weights in TABLE}
    assert names <= set(applications.__all__)


@pytest.mark.parametrize(("shape", "name"), published.IMAGENET_DEFAULTS.items())
def test_imagenet_default_is_a_classifier_of_the_shape(shape, name):
    (weights,) = published.list_weights(name)
    assert (weights.shape, weights.classes) == (shape, 1000)
    documented = getattr(applications, f"ViT{shape.replace('/', '')}").__doc__
    assert f'"imagenet" is {name!r}' in documented


def test_shapes_with_a_classifier_have_an_imagenet_default():
    shapes = {w.shape for w in TABLE if w.classes == 1000}
    assert shapes - set(published.IMAGENET_DEFAULTS) == set()


def test_patterns_match_names_and_the_authors_names_in_any_case():
    names = {weights.name for weights in vit_scaling.list_weights("*B16*")}
    assert {"augreg-b16-224", "mae-b16", "siglip2-b16-512"} <= names
    assert all("b16" in name for name in names)
    (found,) = vit_scaling.list_weights("siglip l/16 256")
    assert found.name == "siglip-l16-256"
    assert vit_scaling.list_weights("nothing*") == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SigLIP2-B16-256", "siglip2-b16-256"),
        ("dinov2s14", "dinov2-s14"),
        ("dinov3-s14", "dinov2-s14"),
        ("mea-b16", "mae-b16"),
    ],
)
def test_misspelt_name_gets_the_nearest(name, nearest):
    assert repr(nearest) in published.suggest_name(name)


def test_names_are_found_without_a_client_or_tensorflow(monkeypatch):
    monkeypatch.setattr(downloads, "fetch_repository", None)
    assert addresses.resolve("mae-b16") == "hf://timm/vit_base_patch16_224.mae"
