"""Programs print this package's own lines; `--verbosity=1` shows the others."""
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vit_scaling
from tests.user_environment import user_environment
from vit_scaling.library_messages import _is_shown as is_shown
from vit_scaling.library_messages import short_message

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (
    "digits/ViTShape.width = 16",
    "digits/ViTShape.mlp_width = 16",
    "digits/ViTShape.heads = 2",
    "digits/ViTShape.depth = 1",
    "BATCH_SIZE = 8",
    "TOTAL_STEPS = 2",
    "WARMUP_STEPS = 1",
    "COOLDOWN_STEPS = 1",
    "EVAL_EVERY = None",
)
OWN_LINES = (  # All that a short training run prints.
    r"Loading TensorFlow and the configuration\.",
    r"Reading the lists of images\.",
    r"Building the model\.",
    r"Checking evaluations and restoring the newest checkpoint, if any\.",
    r"Writing the files that describe the run, and the first checkpoint\.",
    r"Compiling the step; the first report is that of step 2\.",
    r"optimizer +weights .*",
    r"adam +[\d. ]+",
    r"vit_gap|vit: [\d,]+ parameters, .*",
    r"(weight_decay|learning_rate_multipliers) .*",
    r"step +\d+/2 .*",
    r"step +2 eval: .*",
)


def run(module, *arguments):
    """Run a program as a user does; return its lines on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", f"vit_scaling.{module}", *arguments],
        env={
            **user_environment(),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_training_export_and_prediction_print_only_own_lines(digit_records, tmp_path):
    patterns = (
        f"TRAIN_PATTERN = '{digit_records}/train-*'",
        f"EVAL_PATTERN = '{digit_records}/test-*'",
    )
    bindings = [f"--gin_param={text}" for text in (*TRAIN, *patterns)]
    model_dir = tmp_path / "run"
    train = ["--gin_file=quickstart", *bindings, f"--model_dir={model_dir}"]
    lines = run("train", *train)
    assert len(lines) >= 4
    for line in lines:
        assert any(re.fullmatch(own, line) for own in OWN_LINES), lines

    exported = [f"--model_dir={model_dir}", f"--output_dir={tmp_path / 'export'}"]
    assert run("commands.export", *exported) == []
    predict = [f"--saved_model={tmp_path / 'export'}", "--limit=2"]
    predict.append(f"--tfrecords={digit_records}/test-*")
    progress = r"|.*image.*\[\d\d:\d\d.*"
    lines = run("commands.predict", *predict)
    assert lines and all(re.fullmatch(progress, line) for line in lines), lines
    shown = run("commands.predict", *predict, "--verbosity=1")
    assert any("custom gradients" in line for line in shown)
    assert any("cpu_feature_guard" in line for line in shown)


def record(path, level):
    return logging.LogRecord("absl", level, str(path), 1, "text", None, None)


def test_own_warnings_and_errors_of_libraries_are_shown():
    own = Path(vit_scaling.__file__).parent / "training" / "options.py"
    other = Path(logging.__file__)
    assert is_shown(record(own, logging.WARNING))
    assert is_shown(record(other, logging.ERROR))
    assert not is_shown(record(other, logging.WARNING))


def test_a_warning_is_shown_without_time_thread_and_line():
    program = """
from absl import logging
import vit_scaling
from vit_scaling.library_messages import hide_library_messages

hide_library_messages()
own = compile("logging.warning('Steps are %s.', 'few')", vit_scaling.__file__, "exec")
exec(own)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=user_environment(),
        check=True,
    )
    assert done.stderr == "WARNING: Steps are few.\n"


CUT_OFF = """Graph execution error:

Detected at node map/while/cond/DecodeImage defined at (most recent call last):
<stack traces unavailable>
Invalid GIF data (size 6), failed to open gif file: No screen descriptor detected
\t [[{{node map/while/cond/DecodeImage}}]] [Op:__inference_wrapper_3134]"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            CUT_OFF,
            "Invalid GIF data (size 6), failed to open gif file: No screen descriptor "
            "detected",
        ),
        (
            "{{function_node __wrapped__DecodeImage}} Input is empty. [Op:DecodeImage]",
            "Input is empty.",
        ),
        (
            "assertion failed: [It\\'s too large (image 1).]\n\t [[{{node a}}]]",
            "It's too large (image 1).",
        ),
        ("nothing around it", "nothing around it"),
    ],
)
def test_the_cause_of_a_tensorflow_error_is_found(text, cause):
    assert short_message(text) == cause
