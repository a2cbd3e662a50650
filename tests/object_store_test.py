"""The main path on an object store: every file of a run is named `s3://…`.

The store is a file system that this test compiles and registers with TensorFlow (see
tools/delayed_files.cc). Python's own calls (`open`, `os`, `pathlib`) on such a name are
recorded as mistakes.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import sys

import gin
import numpy as np
import pytest
from etils import epath

from tests.data import sets
from vit_scaling.commands import main as commands
from vit_scaling.commands.benchmarks import delayed_files
from vit_scaling.training.checkpoint_files import checkpoint_folder, read_checkpoint

pytestmark = pytest.mark.slow
CLASSES = {"dark": 40, "light": 210}
TINY = (
    *("digits/ViTShape.width = 16", "digits/ViTShape.mlp_width = 16"),
    *("digits/ViTShape.heads = 2", "digits/ViTShape.depth = 1"),
    *("CLASSES = 2", "BATCH_SIZE = 8", "SHUFFLE_WINDOW = 16"),
    *("WARMUP_STEPS = 1", "COOLDOWN_STEPS = 1", "STEPS_PER_LOOP = 2"),
    *("CHECKPOINT_EVERY = 2", "EVAL_EVERY = None", "TOTAL_STEPS = 4"),
)
_watched: list[str] | None = None  # Calls of Python on names of the store.


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if _watched is not None and any("s3:/" in _text(value) for value in arguments):
        _watched.append(f"{event}{arguments}")


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else ""


@pytest.fixture(scope="module", autouse=True)
def python_calls():
    """Record what Python itself does with names that begin with `s3://`."""
    global _watched
    delayed_files.set_delay(0)
    stat = os.stat

    def watch(event, arguments):
        if event == "open" or event.startswith("os."):
            _record(event, arguments)

    def watched_stat(path, *args, **kwargs):
        _record("os.stat", (path,))
        return stat(path, *args, **kwargs)

    sys.addaudithook(watch)
    _watched, os.stat = [], watched_stat
    yield _watched
    _watched, os.stat = None, stat


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The address of an empty folder of the store."""
    return delayed_files.delayed_path(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, python_calls):
    """A name that is taken for a relative path would leave something here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())
    mistakes, python_calls[:] = list(python_calls), []
    assert not mistakes, "\n".join(mistakes[:20])


def run(*arguments):
    gin.clear_config()
    assert commands.main([*arguments]) == 0


def write_images(folder, count, seed):
    generator = np.random.default_rng(seed)
    for name, grey in CLASSES.items():
        for number in range(count):
            noise = generator.integers(-20, 20, (16, 16, 3))
            encoded = sets.encoded((grey + noise).astype(np.uint8), "PNG")
            path = epath.Path(folder) / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)


def train(store):
    patterns = (f"TRAIN_PATTERN = '{store}/set/train-*'",)
    patterns += (f"EVAL_PATTERN = '{store}/set/test-*'",)
    run(
        *("train", "--gin_file=quickstart", f"--model_dir={store}/run"),
        *(f"--gin_param={binding}" for binding in (*TINY, *patterns)),
        "--jit_compile=false",
    )


def test_images_become_records_and_are_checked(store):
    for split, count, seed in (("train", 20, 0), ("test", 6, 1)):
        write_images(f"{store}/images/{split}", count, seed)
        run(
            *("data", "write", f"--source=folder:{store}/images/{split}"),
            *(f"--output_dir={store}/set", f"--split={split}", "--workers=1"),
            *("--num_shards=2",),
        )
    run("data", "verify", f"--pattern={store}/set/train-*")
    manifest = json.loads(epath.Path(f"{store}/set/train.manifest.json").read_text())
    assert manifest["records"] == 40


def test_a_run_resumes_exactly(store):
    train(store)
    folder = checkpoint_folder(f"{store}/run/checkpoints", 4)
    uninterrupted, _ = read_checkpoint(folder)
    folder.rmtree()
    train(store)
    resumed, _ = read_checkpoint(folder)
    assert {key: value.tobytes() for key, value in resumed.items()} == {
        key: value.tobytes() for key, value in uninterrupted.items()
    }


def test_a_run_is_evaluated_exported_and_asked(store, capsys):
    run("evaluate", f"--model_dir={store}/run", "--jit_compile=false")
    run("export", f"--model_dir={store}/run", f"--output_dir={store}/export")
    images = f"{store}/images/test/dark"
    answers = []
    for source in (f"--saved_model={store}/export", f"--model_dir={store}/run"):
        capsys.readouterr()
        run("predict", source, "--images", images, "--json")
        answers.append(json.loads(capsys.readouterr().out)["predictions"])
    assert len(answers[0]) == 6
    assert [a["classes"] for a in answers[0]] == [a["classes"] for a in answers[1]]
    run("weights", "export", f"--source={store}/run", f"--output={store}/run.npz")


def test_near_duplicates_are_removed(store):
    run(
        *("data", "deduplicate", f"--train={store}/set/train-*"),
        *(f"--against={store}/set/test-*", f"--output_dir={store}/clean"),
    )
    run(
        *("data", "stats", f"--pattern={store}/clean/train-*"),
        f"--output_dir={store}/stats",
    )
    assert epath.Path(f"{store}/stats/index.html").exists()
