"""ONNX and LiteRT files answer as the model does, in their own runtimes."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from tests.export import runs
from vit_scaling.commands import export
from vit_scaling.export import onnx_litert, run_loading
from vit_scaling.run_record import RunRecord, record_from_json

RUNNERS = {"onnx": onnx_litert.run_onnx, "litert": onnx_litert.run_litert}
RECORD = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
# Libraries of the converters warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A run in bfloat16 with GELU by erf: the harder one for converters."""
    folder = tmp_path_factory.mktemp("onnx_litert") / "run"
    runs.write_run(folder, runs.small_model("mixed_bfloat16", approximate_gelu=False))
    return folder


@pytest.fixture(scope="module", params=RUNNERS)
def exported(request, model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "out"
    code = export.main(
        [
            f"--format={request.param}",
            f"--model_dir={model_dir}",
            f"--output_dir={folder}",
        ]
    )
    assert code == 0
    return request.param, folder


def test_outputs_are_the_models_for_any_batch(exported, model_dir):
    kind, folder = exported
    model, _ = run_loading.load_run(model_dir)
    images = np.random.default_rng(2).uniform(-1, 1, (5, *runs.IMAGE_SIZE, 3))
    images = images.astype(np.float32)
    wanted = model(images).numpy()
    for batch in (5, 2):
        outputs = RUNNERS[kind](folder / onnx_litert.FILES[kind], images[:batch])
        assert sorted(outputs) == ["features", "logits", "probabilities", "tokens"]
        np.testing.assert_allclose(outputs["logits"], wanted[:batch], atol=1e-5)
        sigmoid = 1 / (1 + np.exp(-wanted[:batch]))  # The run's loss.
        np.testing.assert_allclose(outputs["probabilities"], sigmoid, atol=1e-5)


def test_report_gives_the_largest_difference_and_the_record(exported):
    kind, folder = exported
    content = json.loads((folder / "vit_scaling.json").read_text())
    report = content["report"]
    assert record_from_json(content["record"], source="").class_names == (
        runs.CLASS_NAMES
    )
    assert report["file"] == onnx_litert.FILES[kind] and report["step"] == runs.STEP
    assert report["bytes"] == (folder / report["file"]).stat().st_size
    assert 0 <= max(report["max_difference"].values()) < 1e-5
    assert report["max_difference_to_run_precision"]["logits"] > 1e-4  # bfloat16's.


def test_onnx_file_carries_its_record(model_dir, exported):
    kind, folder = exported
    if kind != "onnx":
        pytest.skip("LiteRT's file has no such place.")
    import onnx

    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model)
    [entry] = model.metadata_props
    assert json.loads(entry.value)["class_names"] == list(runs.CLASS_NAMES)
    # Exact GELU, and ONNX Runtime has no Erfc.
    kinds = {node.op_type for node in model.graph.node}
    assert "Erf" in kinds and "Erfc" not in kinds


@pytest.mark.parametrize("name", ["features", "logits", "tokens"])
@pytest.mark.parametrize("wrong_by", [1e-3, np.nan])
def test_wrong_outputs_are_found_out_and_nothing_is_written(
    name, wrong_by, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_litert, "_to_litert", lambda *_, int8: b"")
    right = runs.small_model()

    def wrong(path, images):
        outputs = onnx_litert._make_exported_function(right, RECORD)(images)
        outputs = {name: value.numpy() for name, value in outputs.items()}
        return {**outputs, name: outputs[name] + wrong_by}

    monkeypatch.setattr(onnx_litert, "run_litert", wrong)
    with pytest.raises(RuntimeError, match="outputs differ"):
        onnx_litert.export_model(right, tmp_path / "out", RECORD, kind="litert")
    assert not list(tmp_path.iterdir())


def test_model_beyond_two_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_litert, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 2 GiB"):
        onnx_litert.export_model(
            runs.small_model(), tmp_path / "o", RECORD, kind="onnx"
        )


def test_unknown_kind_and_kit_of_another_format_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="`kind` must be one of onnx, litert"):
        onnx_litert.export_model(
            runs.small_model(), tmp_path / "o", RECORD, kind="tfjs"
        )
    flags = ["--model_dir=x", "--output_dir=y", "--format=onnx", "--serving_kit=vit"]
    assert export.main(flags) == 1
    assert "--serving_kit serves a SavedModel" in capsys.readouterr().err


def test_flags_without_effect_on_the_format_raise(tmp_path, capsys):
    flags = ["--model_dir=x", f"--output_dir={tmp_path}/o"]
    assert export.main([*flags, "--format=litert", "--top_k=3"]) == 1
    assert "--top_k lists classes in a SavedModel" in capsys.readouterr().err
    assert export.main([*flags, "--version=3"]) == 1
    assert "--version needs --serving_kit=NAME" in capsys.readouterr().err


def test_int8_file_is_smaller_and_gives_nearly_the_same(model_dir, exported, tmp_path):
    kind, folder = exported
    flags = [f"--model_dir={model_dir}", f"--output_dir={tmp_path}/o", "--int8"]
    assert export.main([*flags, f"--format={kind}"]) == 0
    name = onnx_litert.FILES[kind]
    small, exact = tmp_path / "o" / name, folder / name
    # The graph of an ONNX file, which is not smaller, is most of so small a model.
    assert kind == "onnx" or small.stat().st_size < 0.6 * exact.stat().st_size
    images = np.random.default_rng(3).uniform(-1, 1, (4, *runs.IMAGE_SIZE, 3))
    images = images.astype(np.float32)
    run = {"onnx": onnx_litert.run_onnx, "litert": onnx_litert.run_litert}[kind]
    outputs, wanted = (run(file, images) for file in (small, exact))
    difference = np.abs(outputs["logits"] - wanted["logits"]).max()
    assert 1e-4 < difference < 0.1 * np.abs(wanted["logits"]).max()


def test_every_matrix_of_an_int8_onnx_file_has_8_bits(tmp_path):
    import onnx

    model = runs.small_model()
    options = {"kind": "onnx", "int8": True}
    onnx_litert.export_model(model, tmp_path / "o", RECORD, **options)
    graph = onnx.load(tmp_path / "o" / "model.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [n for n in graph.node if n.op_type in ("MatMul", "Gemm")]
    assert all(name not in types for node in products for name in node.input)
    integer = [node for node in graph.node if node.op_type == "MatMulInteger"]
    kernels = [v for v in model.trainable_variables if "kernel" in v.path]
    assert len(integer) == len(kernels)
    assert {types[node.input[1]] for node in integer} == {onnx.TensorProto.INT8}


def test_int8_of_a_saved_model_raises(tmp_path, capsys):
    flags = ["--model_dir=x", f"--output_dir={tmp_path}/o", "--int8"]
    assert export.main(flags) == 1
    assert "--int8 makes an ONNX or LiteRT file smaller" in capsys.readouterr().err
