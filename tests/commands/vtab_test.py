"""`vtab`: real fine-tuning on small copies of three tasks, one of each group."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from tests.data.writing import vtab_replicas
from vit_scaling.commands import vtab
from vit_scaling.modeling.vit import vit


@pytest.mark.filterwarnings("ignore")
def test_sets_that_are_not_prepared_are_named(tmp_path, capsys):
    flags = [f"--output_dir={tmp_path}/out", f"--tfds_data_dir={tmp_path}"]
    assert vtab.main([*flags, "--tasks", "dtd"]) == 1
    assert "not prepared dtd" in capsys.readouterr().err
    assert vtab.main(flags) == 1
    assert "tfds build NAME" in capsys.readouterr().err
    assert vtab.main([*flags, "--tasks", "cifar"]) == 1
    assert "cifar100" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_three_groups_are_trained_and_averaged(tmp_path, capsys):
    for dataset in ("cifar100", "eurosat/rgb", "dsprites"):
        root = tmp_path / dataset.partition("/")[0]
        vtab_replicas.prepare(dataset, root, tmp_path / "tfds")
    vit("mu/16", image_size=32, classes=10).save(tmp_path / "mu.keras")
    values = {
        "INITIAL_WEIGHTS": f"'{tmp_path}/mu.keras'", "SHAPE": "'mu/16'",
        "IMAGE_SIZE": 32, "BATCH_SIZE": 16, "WARMUP_STEPS": 1, "SHUFFLE_WINDOW": 64,
    }  # fmt: skip
    flags = [
        *(f"--output_dir={tmp_path}/out", f"--tfds_data_dir={tmp_path}/tfds"),
        *("--tasks", "cifar100", "eurosat", "dsprites_location"),
        *("--train_images=32", "--val_images=4", "--steps", "4"),
        *(f"--gin_param={name} = {value}" for name, value in values.items()),
    ]
    capsys.readouterr()  # TFDS prints while it prepares its sets.
    assert vtab.main([*flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["groups"]) == {"natural", "specialized", "structured"}
    tests = [result["test"] for result in report["tasks"].values()]
    assert all(0 <= top1 <= 1 for top1 in tests)
    assert report["mean"] == pytest.approx(sum(tests) / 3)
    assert "clevr_count" in report["not_prepared"]
    for name, result in report["tasks"].items():
        assert len(result["grid"]) == 2 and result["learning_rate"] in (0.1, 0.01)
        log = tmp_path / "out" / name / f"train_val_{result['learning_rate']:g}_4.log"
        assert "36 training images" in log.read_text()  # 32 and 4.
    vtab.main(flags)  # Finished runs are not repeated.
    assert "mean of 3 tasks of 19" in capsys.readouterr().out
