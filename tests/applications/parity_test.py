"""An import reports what it did, and writes nothing if the outputs differ."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
import shutil

import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications import parity as module
from vit_scaling.applications.formats import timm
from vit_scaling.applications.formats.name_table import Row
from vit_scaling.modeling.variables import vit_variables

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.mark.parametrize(
    "name", ["augreg", "bv_map", "timm_options", "hf_siglip_vision"]
)
def test_outputs_are_within_the_tolerance_of_the_reference(name):
    report = module.measure_parity(NAMED[name].path, NAMED[name].read(), images=3)
    assert report["within_tolerance"] and report["images"] == 3
    assert 0 < report["largest_difference"] < 1e-5 < report["largest_output"]


def test_a_wrong_table_is_found_out_and_nothing_is_written(tmp_path, monkeypatch):
    def swapped(row):  # Query for key: shapes fit, outputs don't.
        if row.path.startswith("block") and row.part == (0, 3):
            return Row(row.source, row.path, row.transform, (1, 3))
        if row.path.startswith("block") and row.part == (1, 3):
            return Row(row.source, row.path, row.transform, (0, 3))
        return row

    monkeypatch.setattr(timm, "TABLE", tuple(map(swapped, timm.TABLE)))
    biased = NAMED["timm_options"]  # Norms of queries and keys differ.
    output = tmp_path / "x.keras"
    with pytest.raises(ValueError, match="outputs differ from the source's"):
        module.import_weights(biased.path, str(output))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "read_options"),
    [
        ("bv_token", {"ignore": "head/.*"}),
        ("bv_token", {"head": "gap", "ignore": "head/.*"}),
        ("bv_map_tower", {"head": "gap", "ignore": "(head|pre_logits)/.*"}),
        ("bv_token", {"head": "none", "ignore": "head/.*"}),
        ("hf_vit", {"ignore": "classifier.*"}),
        ("hf_vit", {"head": "none", "ignore": "classifier.*"}),
        ("timm_token", {"head": "none", "ignore": "head.*", "heads": 2}),
        ("hf_siglip_vision", {"head": "gap"}),
    ],
)
def test_parts_that_the_caller_leaves_out_do_not_fail_the_comparison(
    name, read_options, tmp_path
):
    output = tmp_path / "m.npz"
    options = module.ReadOptions(**read_options)
    report = module.import_weights(NAMED[name].path, str(output), options=options)
    assert report["parity"]["within_tolerance"] and report["left_out"]
    assert output.exists()


def test_assumptions_are_reported(tmp_path):
    options = module.ReadOptions(heads=2)
    path, output = NAMED["timm_map"].path, str(tmp_path / "m.npz")
    assumed = module.import_weights(path, output, options=options)["assumed"]
    assert any(fact.startswith("GELU by tanh") for fact in assumed)


def test_report_says_what_the_comparison_takes_as_read():
    report = module.measure_parity(NAMED["bv_map"].path, NAMED["bv_map"].read())
    assert report["not_compared"] == ["kind of head", "order in a block"]
    report = module.measure_parity(NAMED["hf_vit"].path, NAMED["hf_vit"].read())
    assert report["not_compared"] == []  # Its config.json says everything.


TIMM = {"architecture": "vit_base_patch16_gap_224", "model_args": {"num_heads": 2}}


@pytest.mark.parametrize(
    ("name", "config", "wrong"),
    [
        ("timm_gap", TIMM, "heads"),
        ("timm_gap", TIMM, "epsilon"),
        ("timm_gap", TIMM, "GELU"),
        ("hf_vit", None, "heads"),
        ("hf_vit", None, "epsilon"),
        ("hf_vit", None, "GELU"),
    ],
)
def test_a_fact_that_the_reader_got_wrong_is_found_out(
    name, config, wrong, tmp_path, monkeypatch
):
    """The reference reads the configuration itself, not what the reader made of it."""
    folder = shutil.copytree(os.path.dirname(NAMED[name].path), tmp_path / "model")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    right = module.read_weights

    def mistaken(*args, **kwargs):
        read = right(*args, **kwargs)
        shape, variables = read.shape, dict(read.variables)
        arguments = {
            "heads": {"shape": dataclasses.replace(shape, heads=4)},
            "epsilon": {"norm_epsilon": 0.1},
            "GELU": {"approximate_gelu": not read.arguments["approximate_gelu"]},
        }[wrong]
        arguments = {**read.arguments, **arguments}
        for path, size in vit_variables(**arguments).items():
            variables[path] = variables[path].reshape(size)  # As 4 heads store it.
        return dataclasses.replace(read, arguments=arguments, variables=variables)

    assert module.import_weights(str(folder), str(tmp_path / "m.npz"))
    monkeypatch.setattr(module, "read_weights", mistaken)
    with pytest.raises(ValueError, match="outputs differ from the source's"):
        module.import_weights(str(folder), str(tmp_path / "n.npz"))
    assert not (tmp_path / "n.npz").exists()
