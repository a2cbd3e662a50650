"""A run with adapters: trained, exported merged, evaluated, its adapter saved alone."""
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401, F811  (a fixture of another module)

import json

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.export import runs as plain_runs
from tests.gin_finetune_test import small, source
from vit_scaling import adapters, configurables, runs
from vit_scaling.applications.adapter_files import export_adapter, load_adapter
from vit_scaling.applications.finetuning import load_for_finetuning
from vit_scaling.applications.weights import load_trained
from vit_scaling.assembly import build_run
from vit_scaling.commands import export_weights
from vit_scaling.export import run_loading, saved_model
from vit_scaling.modeling.vit import vit
from vit_scaling.training.strategy import make_strategy

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
FILES = ("experiments/finetune.gin", "finetuning/lora.gin")


@pytest.fixture(scope="module")
def trained(source, digit_records, tmp_path_factory):
    """A run of three steps with adapters; its model, which has them, at the end."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    experiment = small(source, digit_records, *FILES, more=["LORA_RANK = 4"])
    options = configurables.RunOptions(jit_compile=False)
    strategy = make_strategy()
    runs.train(experiment, options, model_dir=folder, strategy=strategy)
    run = build_run(experiment, options, model_dir=folder, strategy=strategy)
    run.restore()
    evaluated = runs.evaluate(experiment, model_dir=folder, strategy=strategy)
    gin.clear_config()
    return folder, run.model, evaluated


def images(number=3):
    return (
        np.random.default_rng(0).uniform(-1, 1, (number, 64, 64, 3)).astype("float32")
    )


def test_base_is_the_source_s_and_adapters_are_trained(trained, source):
    _, model, evaluated = trained
    weights = source[1]
    values = {v.path: v.numpy() for v in model.variables}
    for path, value in weights.items():
        if path.startswith("block_") or path.startswith("map_head"):
            np.testing.assert_array_equal(values[path], value)
    factors = [v for p, v in values.items() if p.endswith(adapters.B)]
    assert len(factors) == 6 and all(np.abs(v).max() > 0 for v in factors)
    assert np.abs(values["head/kernel"]).max() > 0
    assert evaluated["step"] == 3 and np.isfinite(evaluated["eval"]["loss"])


def test_exports_and_predictions_have_the_merged_kernels(trained, tmp_path):
    folder, model, _ = trained
    merged, _ = run_loading.load_run(folder)
    assert not any(adapters.is_adapter(v.path) for v in merged.variables)
    expected = model(images()).numpy()
    np.testing.assert_allclose(merged(images()), expected, atol=1e-6)
    saved_model.export_run(folder, tmp_path / "export")
    signature = tf.saved_model.load(str(tmp_path / "export")).signatures
    outputs = signature["serving_floats"](images=tf.constant(images()))
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-6)


def test_fine_tuning_can_start_from_a_run_with_adapters(trained):
    folder, model, _ = trained
    new = vit("mu/16", image_size=64, classes=10)
    report = load_for_finetuning(new, str(folder), classifier=True)
    assert not report.left
    np.testing.assert_allclose(new(images()), model(images()), atol=1e-6)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_adapter_alone_restores_the_model_on_its_source(
    trained,
    source,
    tmp_path,
    suffix,
    capsys,
):
    folder, model, _ = trained
    output = str(tmp_path / f"adapter{suffix}")
    flags = [f"--source={folder}", f"--output={output}", "--adapter", "--json"]
    assert export_weights.main(flags) == 0
    report = json.loads(capsys.readouterr().out)
    parameters = sum(v.numpy().size for v in model.trainable_variables) + 6  # Scales.
    assert report["parameters"] == parameters < 0.5 * model.count_params()
    new = vit("mu/16", image_size=64, classes=10)
    load_for_finetuning(new, str(source[0]))
    load_adapter(new, output)
    np.testing.assert_allclose(new(images()), model(images()), atol=1e-6)


def test_runs_and_models_that_do_not_fit_are_rejected(trained, tmp_path):
    folder, _, _ = trained
    plain_runs.write_run(tmp_path / "plain", plain_runs.small_model())
    with pytest.raises(ValueError, match="has no adapters; it was trained without"):
        export_adapter(tmp_path / "plain", str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match=r"\.safetensors or \.npz; received"):
        export_adapter(folder, str(tmp_path / "a.bin"))
    output = str(tmp_path / "a.npz")
    export_adapter(folder, output)
    other = vit("mu/16", image_size=64, classes=3)
    before = [v.numpy() for v in other.variables]
    with pytest.raises(ValueError, match="in another shape, head/kernel"):
        load_adapter(other, output)
    for ours, was in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(ours, was)


def test_a_loaded_run_is_a_plain_model(trained):
    model = load_trained(str(trained[0]))
    assert isinstance(model, keras.Model)
    assert not any(adapters.is_adapter(v.path) for v in model.variables)
