"""From a folder of images to predictions, by commands alone."""
# SPDX-License-Identifier: Apache-2.0

import json
import subprocess
import sys

import numpy as np
import pytest

import vit_scaling
from tests.data import sets
from tests.user_environment import user_environment
from vit_scaling.training.run_weights import read_weights

GREYS = {"dark": 40, "light": 210}


def write_images(folder, count, seed):
    generator = np.random.default_rng(seed)
    for name, grey in GREYS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = generator.integers(-20, 20, (16, 16, 3))
            pixels = np.clip(grey + noise, 0, 255).astype(np.uint8)
            (folder / name / f"{seed}_{number}.png").write_bytes(
                sets.encoded(pixels, "PNG")
            )


def run(*arguments, cwd):
    code = "from vit_scaling.commands.main import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=user_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    write_images(folder / "images", 24, seed=0)
    write_images(folder / "others", 5, seed=1)
    shorter = [f"--gin_param={name}" for name in ("TOTAL_STEPS = 60", "SEED = 1")]
    done = run(
        *("train", "--data=images", "--model_dir=run", "--cache_dir=cache"),
        *shorter,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_settings_are_printed_and_can_be_overridden(trained):
    folder, done = trained
    assert "About 43 images of 2 classes; evaluated on 10% held out" in done.stderr
    assert "tensorflow/" not in done.stderr
    assert "BATCH_SIZE" in done.stderr and "a power of two" in done.stderr
    assert "vit-scaling predict --model_dir=run" in done.stderr
    config = (folder / "run" / "config.gin").read_text()
    assert "TOTAL_STEPS = 60" in config and "CLASSES = 2" in config
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["class_names"] == ["dark", "light"]


def test_a_run_is_evaluated_by_its_own_configuration(trained):
    folder, _ = trained
    done = run("evaluate", "--model_dir=run", cwd=folder)
    assert done.returncode == 0 and "top1 1.0000" in done.stderr, done.stderr
    other = ("--data=others", "--cache_dir=cache")
    done = run("evaluate", "--model_dir=run", *other, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "top1 1.0000" in done.stderr and "10 images" in done.stderr
    assert "tensorflow/" not in done.stderr


def test_an_evaluation_writes_a_page_on_the_mistakes(trained):
    folder, _ = trained
    done = run("evaluate", "--model_dir=run", "--report=page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "page.html").read_text()
    assert "run, step 60" in page and "dark" in page and "100.00 % of" in page
    done = run("evaluate", "--model_dir=run", "--report=no/page.html", cwd=folder)
    assert done.returncode == 1 and "'no' of 'page.html'" in done.stderr
    assert "top1" not in done.stderr


def test_the_same_command_fine_tunes_weights(trained):
    folder, _ = trained
    done = run(
        *("train", "--data=images", "--init=run", "--model_dir=tuned"),
        *("--cache_dir=cache", "--gin_param=TOTAL_STEPS = 20"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "as the weights were trained" in done.stderr
    assert "Starts from" in done.stderr and "2 with initial values" in done.stderr
    record = json.loads((folder / "tuned" / "run.json").read_text())
    assert record["initial_weights"]["source"] == str(folder / "run")
    assert record["loss"] == "softmax_cross_entropy"
    config = (folder / "tuned" / "config.gin").read_text()
    assert "Momentum" in config and "SHAPE = @init/ViTShape()" in config


@pytest.mark.slow
def test_the_same_command_trains_adapters(trained):
    folder, _ = trained
    done = run(
        *("train", "--data=images", "--init=run", "--model_dir=adapted"),
        *("--cache_dir=cache", "--gin_param=TOTAL_STEPS = 20", "--lora_rank=2"),
        *("--label_smoothing=0.1", "--nojit_compile"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    values, _ = read_weights(folder / "adapted")
    assert any(path.endswith("dense_0/lora_a") for path in values)
    config = (folder / "adapted" / "config.gin").read_text()
    assert "LORA_RANK = 2" in config and "LABEL_SMOOTHING = 0.1" in config
    image = str(next((folder / "others/dark").iterdir()))
    assert vit_scaling.load_run(folder / "adapted").predict([image], top=1)


def test_weights_have_a_shape_of_their_own(trained):
    folder, _ = trained
    given = ("train", "--data=images", "--model_dir=never", "--shape=Ti/16")
    done = run(*given, "--init=run", cwd=folder)
    assert done.returncode == 1 and "leave out --shape=Ti/16" in done.stderr
    done = run(*given[:-1], "--init=ru", cwd=folder)
    assert done.returncode == 1 and "'ru'" in done.stderr
    done = run(*given[:-1], "--init=imagenet", "--shape=s/16", cwd=folder)
    assert done.returncode == 1 and "are published for 's/16'" in done.stderr
    assert not (folder / "never").exists()


def test_images_are_predicted_without_an_export(trained):
    folder, _ = trained
    images = sorted(str(path) for path in (folder / "others").rglob("*.png"))
    done = run(
        *("predict", "--model_dir=run", "--json", "--top=1", "--images", *images),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["predictions"]
    assert [row["classes"] for row in rows] == [["dark"]] * 5 + [["light"]] * 5
    in_python = vit_scaling.load_run(folder / "run")
    assert in_python.class_names == ("dark", "light")
    pixels = np.full((16, 16, 3), 210, np.uint8)
    (from_file, from_array) = in_python.predict([images[0], pixels], top=1)
    assert from_file.classes == ("dark",) and from_array.classes == ("light",)
    np.testing.assert_allclose(
        from_file.probabilities, rows[0]["probabilities"], rtol=1e-5
    )
    assert in_python.metrics["step"].max() == 60
    prepared = in_python.preprocess((folder / "others/dark/1_0.png").read_bytes(), 16)
    assert prepared.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--shape=Ti/16", "--model_dir=x"], "--shape has no effect without"),
        (["train", "--data=none", "--model_dir=x"], "'none'"),
        (["train", "--data=a", "--model_dir=x", "--lora_rank=8"], "need trained wei"),
        (["evaluate", "--model_dir=none"], "none/config.gin"),
        (["predict", "--images", "x.png"], "Give one of --model_dir"),
    ],
)
def test_bad_input_is_named_in_one_line(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode != 0 and message in done.stderr
    assert "Traceback" not in done.stderr
