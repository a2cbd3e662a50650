"""All programs that use a trained run take the weights that the run evaluates."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from tests.export import runs
from vit_scaling import array_files
from vit_scaling.applications import weights
from vit_scaling.applications.finetuning import load_for_finetuning
from vit_scaling.commands import evaluate_fewshot, export, export_weights
from vit_scaling.commands import import_weights as import_command
from vit_scaling.export import run_loading, saved_model
from vit_scaling.run_record import uses_averages

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
# The choice, and the value that every averaged or last variable has.
CHOICES = [(None, 0.5), (True, 0.5), (False, 0.25)]


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory):
    """A run that evaluates averages, all 0.5; its last weights are all 0.25."""
    folder = tmp_path_factory.mktemp("run")
    model = runs.small_model()
    for variable in model.variables:
        variable.assign(np.full(variable.shape, 0.25))
    averages = {v.path: np.full(v.shape, 0.5, "f") for v in model.variables}
    runs.write_run(folder, model, averages=averages, evaluates_averages=True)
    return folder


def values_of(variables):
    """Return the one value of all variables."""
    (value,) = {float(value) for v in variables for value in np.unique(v)}
    return value


def loaded(path, averages):
    return run_loading.load_run(path, averages=averages)[0].variables


def loaded_for_export(path, averages):
    return run_loading.load_for_export(path, averages=averages)[0].variables


def trained(path, averages):
    return weights.load_trained(str(path), averages=averages).variables


def read(path, averages):
    return weights.read_weights(str(path), averages=averages).variables.values()


def finetuned(path, averages):
    model = runs.small_model()
    load_for_finetuning(model, str(path), classifier=True, averages=averages)
    return model.variables


@pytest.mark.parametrize(("averages", "value"), CHOICES)
@pytest.mark.parametrize(
    "consumer",
    [loaded, loaded_for_export, trained, read, finetuned],
    ids=lambda consumer: consumer.__name__,
)
def test_consumers_take_what_the_run_evaluates(
    averaged_run, consumer, averages, value, capsys
):
    assert values_of(consumer(averaged_run, averages)) == value
    kind = "averaged" if value == 0.5 else "last"
    assert f"{averaged_run}: {kind} weights of step 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "value"), [([], 0.5), (["--averages"], 0.5), (["--no-averages"], 0.25)]
)
@pytest.mark.parametrize("command", [export_weights, import_command])
def test_weight_commands_take_what_the_run_evaluates(
    averaged_run, command, flags, value, tmp_path
):
    output = str(tmp_path / "out.npz")
    asked = [f"--source={averaged_run}", f"--output={output}", *flags]
    assert command.main(asked) == 0
    arrays = array_files.read_npz(output)
    assert values_of(a for a in arrays.values() if a.dtype == np.float32) == value


@pytest.mark.parametrize(
    ("flags", "kind"),
    [([], "averaged"), (["--averages"], "averaged"), (["--no-averages"], "last")],
)
def test_export_says_which_weights_it_has(averaged_run, flags, kind, tmp_path, capsys):
    flags = [f"--model_dir={averaged_run}", f"--output_dir={tmp_path}/out", *flags]
    assert export.main([*flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == kind
    assert saved_model.read_record(tmp_path / "out").weights == kind


def test_fewshot_reads_the_run_by_the_same_rule(monkeypatch):
    asked = []

    def load_run(path, *, averages):
        asked.append(averages)
        raise ValueError

    monkeypatch.setattr(run_loading, "load_run", load_run)
    for flags in ([], ["--averages"], ["--no-averages"]):
        evaluate_fewshot.main(["--model_dir=R", "--train=a", "--test=b", *flags])
    assert asked == [None, True, False]


def test_run_without_averages_gives_its_last_weights(tmp_path):
    runs.write_run(tmp_path, runs.small_model())
    assert not uses_averages(tmp_path) and not uses_averages(tmp_path / "missing")
    assert run_loading.load_run(tmp_path)[1].weights == "last"
    with pytest.raises(ValueError, match=r"holds none\. Take the last weights by"):
        run_loading.load_run(tmp_path, averages=True)


def test_missing_averages_that_the_record_asks_for_are_reported(tmp_path):
    runs.write_run(tmp_path, runs.small_model(), evaluates_averages=True)
    with pytest.raises(ValueError, match=r"run\.json asks for averaged weights"):
        run_loading.load_run(tmp_path)
    assert run_loading.load_run(tmp_path, averages=False)[1].weights == "last"
