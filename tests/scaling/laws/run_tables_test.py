"""CSV files with any columns and units, and messages about their errors."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.modeling.shapes import ViTShape, shape_named
from vit_scaling.scaling.laws.power_law import fit_power_law
from vit_scaling.scaling.laws.run_tables import runs_from
from vit_scaling.scaling.laws.runs import write_csv


@pytest.fixture
def csv(tmp_path):
    def write(text):
        (tmp_path / "runs.csv").write_text(text)
        return tmp_path / "runs.csv"

    return write


def test_columns_may_have_any_names(csv):
    path = csv("net,days,err,pictures\nB/16,3.5,31.2,30M\nL/16,9,25,3B\n")
    columns = {"model": "net", "compute": "days", "error": "err"}
    runs = runs_from(
        path, unit="core_days", error_unit="percent", data_size="pictures", **columns
    )
    assert [run.model for run in runs] == ["B/16", "L/16"]
    assert list(runs.error) == [pytest.approx(0.312), 0.25]
    assert runs.data_sizes == [3e7, 3e9]
    assert runs.rows[0].source == "runs.csv:2"
    assert runs.rows[0].shape.depth == 12


def test_a_models_own_shape_is_read_and_written(csv, tmp_path):
    header = "model,flops,error,patch,width,depth,mlp_width,heads\n"
    runs = runs_from(csv(f"{header}mine,1e18,.5,4,16,2,32,2\nB/16,2e18,.4,,,,,\n"))
    assert runs.rows[0].shape == ViTShape(4, 16, 2, 32, 2)
    assert runs.rows[1].shape == shape_named("B/16")
    write_csv(runs, tmp_path / "again.csv")
    again = runs_from(tmp_path / "again.csv")
    assert [run.shape for run in again] == [run.shape for run in runs]
    with pytest.raises(ValueError, match=r"line 2: patch, .* must be whole numbers"):
        runs_from(csv(f"{header}mine,1e18,.5,4,16.5,2,32,2\n"))


def test_the_unit_is_read_from_the_column_or_the_cells(csv):
    assert runs_from(csv("flops,error\n1e18,.5\n")).compute_unit == "flops"
    assert runs_from(csv("compute,error\n1e18 FLOPs,.5\n")).compute_unit == "flops"
    assert runs_from(csv("core_days,error\n3,.5\n")).compute_unit == "core_days"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compute,eror\n1,.5\n", "no column 'error' for error. Did you mean 'eror'"),
        ("cost,error\n1,.5\n", "no column 'compute'"),
        ("compute,error\n", "has a header and no row"),
        ("compute,error\nmany,.5\n", "line 2: A number was expected"),
        ("core_days,error\n0,.5\n", "line 2: `compute` must be a finite number"),
        ("core_days,error\n1,50\n", "line 2: .*--error_unit=percent"),
        ("compute,error\n3 core-days,.5\n1e18 FLOPs,.4\n", "must have one unit"),
        (
            "compute,error\n3 parsecs,.5\n",
            "The unit of compute in the cell 'parsecs' is not known",
        ),
        ("core_days,error\n3,.5\n1e18,.4\n", "looks like mixed units"),
        ("model,core_days,error\na,3,.5\na,3,.4\n", "duplicate runs"),
        (
            "weights,tokens,core_days,error\n5,3,1,.5\n6,3,2,.4\n",
            "No column of models or their sizes was found; give it as --size_column",
        ),
    ],
)
def test_bad_tables_are_explained(csv, text, message):
    with pytest.raises(ValueError, match=message):
        runs_from(csv(text))


def test_a_missing_named_column_suggests_the_nearest(csv):
    with pytest.raises(ValueError, match="Did you mean 'days'"):
        runs_from(csv("days,error\n1,.5\n"), compute="day")


def test_percentages_below_one_are_read_as_declared(csv):
    runs = runs_from(csv("core_days,error\n1,.5\n2,.4\n"), error_unit="percent")
    assert list(runs.error) == pytest.approx([0.005, 0.004])
    runs = runs_from(csv("core_days,error_pct\n1,.5\n2,.4\n"))
    assert list(runs.error) == pytest.approx([0.005, 0.004])
    with pytest.raises(ValueError, match="`error_unit` must be"):
        runs_from(csv("compute,error\n1,.5\n"), error_unit="percents")


def test_a_requested_unit_must_be_the_cells_unit(csv):
    with pytest.raises(ValueError, match="received flops in the row where core_days"):
        runs_from(csv("compute,error\n1e18 FLOPs,.5\n"), unit="core_days")


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no runs\.csv"):
        runs_from(tmp_path)
    with pytest.raises(FileNotFoundError, match="Did you mean 'paper'"):
        runs_from("papr")
    with pytest.raises(FileNotFoundError, match="No table of runs"):
        runs_from(tmp_path / "none.csv")


def test_gflops_are_not_read_as_flops(csv):
    """A law planted in FLOPs is found again from a table in GFLOPs."""
    flops = np.geomspace(1e18, 1e22, 12)
    rows = [f"m{k},{c / 1e9:.8g},{62.5 * c**-0.111:.8g}" for k, c in enumerate(flops)]
    path = csv("\n".join(["model,gflops_total,error", *rows, ""]))
    runs = runs_from(path, compute="gflops_total")
    assert (runs.compute_unit, runs.unit.label) == ("gflops", "GFLOPs")
    assert list(runs.compute * runs.unit.factor) == pytest.approx(list(flops))
    law = fit_power_law(runs).law
    assert law.error_at(np.array([1e14]))[0] == pytest.approx(
        62.5 * 1e23**-0.111, rel=0.01
    )


@pytest.mark.parametrize("column", ["gflops_per_image", "days", "kWh", "compute"])
def test_a_column_without_a_unit_asks_for_one(csv, column):
    path = csv(f"{column},error\n3,.5\n")
    with pytest.raises(
        ValueError, match=r"is not known.*Give --compute_unit.*gpu_hours"
    ):
        runs_from(path, compute=column)
    assert runs_from(path, compute=column, unit="GPU hours").unit.label == ("GPU-hours")


def test_public_tables_are_read_in_their_units(csv):
    """Columns and first rows of Hoffmann et al.'s and OpenCLIP's tables."""
    path = csv("arch,gmacs_total,acc1\nViT-L-14,1122944000000.0,0.7138686\n")
    (run,) = runs_from(path)
    assert run.compute_unit == "gmacs"
    assert run.error == pytest.approx(1 - 0.7138686)
    path = csv("Model Size,Training FLOP,error\n6795600349.3,9.99385e+18,0.5\n")
    (run,) = runs_from(path, compute="Training FLOP")
    assert (run.compute, run.compute_unit) == (9.99385e18, "flops")


def test_a_model_without_its_patch_is_ambiguous(csv):
    with pytest.raises(ValueError, match=r"line 2: Model 'Ti' .* Write Ti/16, or"):
        runs_from(csv("model,flops,error\nTi,1e18,.5\n"))
    with pytest.raises(ValueError, match="Write B/32 or B/28 or B/16"):
        runs_from(csv("model,flops,error\nB,1e18,.5\n"))
    header = "model,flops,error,patch,width,depth,mlp_width,heads\n"
    (run,) = runs_from(csv(f"{header}Ti,1e18,.5,32,192,12,768,3\n"))
    assert run.shape.patch == 32
