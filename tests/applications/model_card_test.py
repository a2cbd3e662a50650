"""The model card has a run's data, settings and last results."""
# SPDX-License-Identifier: Apache-2.0

import json

from tests.applications.published_folders import random_weights
from tests.export import runs
from vit_scaling.applications.model_card import last_results, write_card
from vit_scaling.commands import export_weights


def test_the_card_of_a_run_has_its_data_settings_and_results(tmp_path):
    run = tmp_path / "run"
    model = runs.small_model(head="token")
    runs.write_run(run, model, train_images=1754, preprocess="resize")
    rows = [
        {"kind": "eval", "step": 3, "time": 1.0, "top1": 0.25, "seconds": 1.0},
        {"kind": "train", "step": 5, "time": 1.0, "loss": 2.0},
        {"kind": "eval", "step": 7, "time": 2.0, "top1": 0.625, "seconds": 1.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (run / "config.gin").write_text("BATCH_SIZE = 128\n")
    out = tmp_path / "beetles"
    flags = [f"--source={run}", f"--output={out}", "--format=huggingface"]
    assert export_weights.main(flags) == 0
    card = (out / "README.md").read_text()
    for text in (
        "library_name: transformers",
        "# beetles",
        "| eval/top1 (step 7) | 0.625 |",
        "| images | 1,754 |",
        "ant, bee, cat, dog",
        "BATCH_SIZE = 128",
        f"AutoModelForImageClassification.from_pretrained('{out}')",
        "the configuration has the closest, bilinear",
    ):
        assert text in card, text
    assert "0.25" not in card
    processor = json.loads((out / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 32, "width": 48}
    assert processor["image_mean"] == [0.5, 0.5, 0.5]


def test_a_card_without_a_run_says_what_is_not_recorded():
    weights = random_weights(head="gap")
    card = write_card("x", weights, "load()", library="timm", source="file.npz")
    assert card.count("Not recorded.") == 2  # Results and settings.
    assert "| pooling | gap |" in card and "| filter | bicubic |" in card
    features = random_weights(head="gap", classes=None)
    card = write_card("x", features, "load()", library="timm", source="")
    assert "pipeline_tag: image-feature-extraction" in card
    assert "| images | not recorded |" in card


def test_results_are_the_last_of_every_set(tmp_path):
    rows = [
        {"kind": "eval", "step": 1, "top1": 0.5},
        {"kind": "real", "step": 1, "top1": 0.25},
        {"kind": "eval", "step": 2, "top1": 0.75, "time": 9, "note": "x"},
        {"kind": "roll_back", "step": 1, "from": 2},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = {"eval/top1 (step 2)": "0.75", "real/top1 (step 1)": "0.25"}
    assert last_results(path) == expected
    assert last_results(tmp_path / "none.jsonl") == {}
