"""The training binary: flags in, a run out; what cannot be run is said in one line."""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import gin
import pytest
import tensorflow as tf
from absl import app, flags
from absl.testing import flagsaver

from vit_scaling import configurables, runs, train
from vit_scaling.training.checkpoint_files import (
    checkpoint_folder,
    read_checkpoint,
    saved_steps,
)
from vit_scaling.training.evaluator import Evaluator
from vit_scaling.training.logs import read_metrics
from vit_scaling.training.preemption import PreemptedError
from vit_scaling.training.trainer import Trainer

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = (
    "digits/ViTShape.width = 16",
    "digits/ViTShape.mlp_width = 16",
    "digits/ViTShape.heads = 2",
    "digits/ViTShape.depth = 1",
    "vit.dropout = 0.1",
    "HEAD = 'gap'",
    "SHUFFLE_WINDOW = 128",
    "BATCH_SIZE = 8",
    "WARMUP_STEPS = 1",
    "COOLDOWN_STEPS = 1",
    "STEPS_PER_LOOP = 10",
)

PATTERNS = ["--gin_param=TRAIN_PATTERN = 'x-*'", "--gin_param=EVAL_PATTERN = 'y-*'"]


def arguments(records, *, steps, every):
    """Return the flags of a tiny run of the quickstart on the digits."""
    given = [
        *TINY,
        f"TOTAL_STEPS = {steps}",
        f"CHECKPOINT_EVERY = {every}",
        f"TRAIN_PATTERN = '{records}/train-*'",
        f"EVAL_PATTERN = '{records}/test-*'",
        "EVAL_EVERY = None",
    ]
    return ["--gin_file=quickstart", *(f"--gin_param={binding}" for binding in given)]


# The real binary, in processes of its own.


def start(args, cwd):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "vit_scaling.train", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def last_bits(model_dir):
    step = saved_steps(model_dir / "checkpoints")[-1]
    values, manifest = read_checkpoint(
        checkpoint_folder(model_dir / "checkpoints", step)
    )
    bits = {key: (v.dtype, v.shape, v.tobytes()) for key, v in values.items()}
    return step, manifest["state"]["images_seen"], bits


def test_a_killed_run_resumes_and_its_own_files_repeat_it_bit_for_bit(
    digit_records, tmp_path
):
    killed, repeated = tmp_path / "killed", tmp_path / "repeated"
    args = arguments(digit_records, steps=200, every=10)
    args += [f"--model_dir={killed}", "--mode=train", "--seed=3", "--nojit_compile"]
    process = start(args, tmp_path)
    while not [step for step in saved_steps(killed / "checkpoints") if step >= 10]:
        assert process.poll() is None, finish(process)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    reached = saved_steps(killed / "checkpoints")[-1]
    assert 10 <= reached < 200

    code, out, err = finish(start(args, tmp_path))
    assert code == 0 and not out, err
    # The newest was perhaps being written; then the one before it is taken.
    assert "resumes at step" in err and "Traceback" not in err
    how = ["--mode=train", "--seed=3", "--nojit_compile"]
    assert (killed / "flags.txt").read_text().split() == how

    again = ["--gin_file=config.gin", "--flagfile=flags.txt", f"--model_dir={repeated}"]
    code, _, err = finish(start(again, killed))
    assert code == 0, err
    assert last_bits(repeated) == last_bits(killed)
    assert last_bits(repeated)[0] == 200
    for name in ("config.gin", "flags.txt", "model.json"):
        assert (repeated / name).read_text() == (killed / name).read_text(), name
    assert [row["step"] for row in read_metrics(killed, "train")] == [
        *range(10, 201, 10)
    ]


def test_the_binary_says_in_one_line_what_is_wrong_and_exits_with_1(tmp_path):
    args = ["--gin_file=quikstart", f"--model_dir={tmp_path / 'run'}"]
    code, out, err = finish(start(args, tmp_path))
    assert code == 1 and not out
    (line,) = [line for line in err.splitlines() if "error" in line]
    assert line.startswith("vit-scaling train: error: `gin_file` must be")
    assert "experiments/quickstart.gin" in line and "Traceback" not in err
    assert not (tmp_path / "run").exists()


# The same code in this process: what each flag does.


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function from flags to (exit code, standard error)."""
    monkeypatch.setattr(flags, "mark_flag_as_required", lambda name: None)
    monkeypatch.setattr(flags, "register_validator", lambda *_: None)

    def parsed(main):
        flags.FLAGS(["train", *parsed.args])
        main([])

    monkeypatch.setattr(app, "run", parsed)

    def call(*args):
        parsed.args = args
        flags.FLAGS.unparse_flags()
        gin.clear_config()
        with flagsaver.flagsaver():
            try:
                train.main()
                code = 0
            except SystemExit as error:
                code = error.code
        return code, capsys.readouterr().err

    return call


def model_dir(path):
    return f"--model_dir={path}"


def test_replicas_are_made_of_virtual_devices(run, digit_records, tmp_path):
    args = arguments(digit_records, steps=4, every=4)
    more = ["--distribution=mirrored", "--num_virtual_devices=4", model_dir(tmp_path)]
    code, err = run(*args, "--mode=train", *more)
    assert code == 0, err
    assert "4 replica(s), XLA off" in err
    assert (tmp_path / "flags.txt").read_text().split() == [
        "--mode=train",
        "--distribution=mirrored",
        "--num_virtual_devices=4",
    ]


def test_check_prints_a_summary_and_writes_nothing(
    run, digit_records, tmp_path, monkeypatch
):
    def fail(*_):
        raise AssertionError("A check neither trains nor evaluates a whole set.")

    monkeypatch.setattr(Trainer, "train_step", fail)
    monkeypatch.setattr(Evaluator, "evaluate", fail)
    args = arguments(digit_records, steps=4, every=4)
    code, err = run(*args, "--mode=check", model_dir(tmp_path / "run"))
    assert code == 0, err
    assert "train: 1,438 images, 10 classes\neval: 359 images, 10 classes\n" in err
    assert "train: first batch: 8 images 16×16×3, mean -0." in err
    assert "eval: first labels: 0 " in err and "eval: first evaluation: loss " in err
    assert "images 16×16×3 to 10 logits, 4 steps of 8 images" in err
    assert " parameters, 1,438 training images" in err and "bytes/param" in err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def passed(monkeypatch):
    """What the binary passed to the functions that it leads to, by their names."""
    seen = {}
    functions = {
        "train": runs,
        "evaluate": configurables,
        "evaluate_continuously": configurables,
    }
    for name, module in functions.items():

        def note(experiment, options=None, *, name=name, **launch):
            seen.update(name=name, experiment=experiment, options=options, **launch)

        monkeypatch.setattr(module, name, note)
    return seen


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("train", "train"),
        ("train_and_eval", "train"),
        ("eval", "evaluate"),
        ("continuous_eval", "evaluate_continuously"),
    ],
)
def test_modes_lead_to_their_functions(
    run, passed, digit_records, tmp_path, mode, name
):
    args = arguments(digit_records, steps=4, every=4)
    code, err = run(*args, f"--mode={mode}", model_dir(tmp_path), "--jit_compile")
    assert code == 0, err
    assert passed["name"] == name
    options = passed["options"]
    compiles = options.jit_compile if name == "train" else passed["jit_compile"]
    assert passed["model_dir"] == str(tmp_path) and compiles is True
    assert isinstance(passed["strategy"], tf.distribute.OneDeviceStrategy)
    assert passed["experiment"].schedule.total_steps == 4
    if name == "train":
        assert options.evaluate is (mode == "train_and_eval")


def test_evaluation_takes_the_step_that_is_asked_for(
    run, passed, digit_records, tmp_path
):
    args = arguments(digit_records, steps=4, every=4)
    run(*args, "--mode=eval", "--checkpoint_step=2", model_dir(tmp_path))
    assert passed["step"] == 2


def test_a_later_gin_file_wins_and_a_parameter_wins_over_both(
    run, passed, digit_records, tmp_path
):
    args = arguments(digit_records, steps=4, every=4)
    run(*args, "--gin_file=smoke", "--gin_param=BATCH_SIZE = 24", model_dir(tmp_path))
    assert passed["experiment"].batch_size == 24
    assert passed["experiment"].train_data.image_size == 64  # smoke.gin's.


def test_the_seed_flag_reaches_weights_and_batches(
    run, passed, digit_records, tmp_path
):
    run(*arguments(digit_records, steps=4, every=4), "--seed=7", model_dir(tmp_path))
    assert gin.query_parameter("SEED/gin.macro.value") == 7
    texts = passed["texts"]()
    assert "RunOptions.seed = %SEED" in texts["config.gin"]
    assert "vit.seed = %SEED" in texts["config.gin"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gin_param=TRAIN_PATTERN = ''"], "`pattern` must name TFRecord files"),
        (["--gin_param=TRAIN_PATTERN = '/no/train-*'"], "/no/train-*"),
        (["--gin_param=EVAL_PATTERN = '/no/test-*'"], "/no/test-*"),
        (["--gin_param=digits/ViTShape.heads = 3"], "`width` must be a multiple of"),
        (["--gin_param=digits/ViTShape.patch = 17"], "`image_size` must be at least"),
        (["--gin_param=CLASSES = 5"], "`classes` must cover the set's class names"),
        (["--gin_param=BATCH_SIZE = 9", "--distribution=mirrored"], "`batch_size`"),
        (["--gin_param=HEAD = 'mpa'"], "'map'"),
        (["--gin_param=TOTAL_STEP = 9"], "did you mean TOTAL_STEPS"),
        (["--gin_param=BATCH_SIZE = '8'"], "`batch_size`"),
        (["--profile_steps=5"], "`profile_steps` must be two rising steps"),
        (["--profile_steps=a,b"], "`profile_steps` must be steps of the run"),
        (["--gin_param=EXPLODES_AT = 0.5"], "`explodes_at` must be a number above 1"),
        (["--distribution=tpu"], "`tpu` names the TPU"),
        (["--num_virtual_devices=3"], "goes with no other"),
        (["--distribution=multi_worker_mirrored"], "TF_CONFIG"),
        (["--mode=eval"], "`model_dir` must hold a trained run"),
        (["--mode=branch_cooldown"], "`branch_at` must be steps of the run"),
        (["--branch_at=ten"], "`branch_at` must be steps of the run"),
        (
            [
                "--mode=branch_cooldown",
                "--branch_at=2",
                "--branch_cooldown_steps=1,0",
            ],
            "`branch_cooldown_steps` must be steps of the run",
        ),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_bad_input_is_reported_in_one_line_before_the_first_step(
    run, digit_records, tmp_path, more, message
):
    args = arguments(digit_records, steps=4, every=4)
    code, err = run(*args, model_dir(tmp_path / "run"), *more)
    assert code == 1
    (line,) = [line for line in err.splitlines() if "error: " in line]
    assert line.startswith("vit-scaling train: error: ") and message in line
    assert "In call to configurable" not in err
    assert not saved_steps(tmp_path / "run" / "checkpoints")
    assert not read_metrics(tmp_path / "run", "train")


def test_an_unknown_shape_is_rejected_with_the_nearest(run, digit_records, tmp_path):
    data = arguments(digit_records, steps=3, every=3)[-3:-1]
    files = ["--gin_file=vit_s16", "--gin_file=smoke", model_dir(tmp_path / "run")]
    code, err = run(*data, *files, "--gin_param=SHAPE = 'l/16'")
    assert code == 1 and "No shape is called 'l/16'. Did you mean 'L/16'?" in err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_model_is_rejected_and_stays(run, digit_records, tmp_path):
    args = [*arguments(digit_records, steps=2, every=2), model_dir(tmp_path)]
    code, err = run(*args, "--nojit_compile", "--mode=train")
    assert code == 0, err
    saved = files(tmp_path)
    code, err = run(*args, "--gin_param=digits/ViTShape.width = 32")
    assert code == 1 and "`digits/ViTShape.width` was 16 and is now 32" in err
    assert files(tmp_path) == saved


# A run that resumes with other settings.


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_changes_at_resume_are_printed_and_recorded_and_every_configuration_stays(
    run, digit_records, tmp_path
):
    args = [*arguments(digit_records, steps=2, every=2), model_dir(tmp_path)]
    args += ["--mode=train", "--nojit_compile"]
    assert run(*args)[0] == 0
    longer = [*args, "--gin_param=TOTAL_STEPS = 4", "--gin_param=CLIP_NORM = 0.5"]
    before = (tmp_path / "config.gin").read_text()
    code, err = run(*longer)
    assert code == 0, err
    assert "  TOTAL_STEPS: 2 → 4\n" in err and "  CLIP_NORM: 1.0 → 0.5\n" in err
    (row,) = read_metrics(tmp_path, "settings")
    assert row["step"] == 2
    changes = [["TOTAL_STEPS", "2", "4"], ["CLIP_NORM", "1.0", "0.5"]]
    assert sorted(row["changes"]) == sorted(changes)
    assert (tmp_path / "config_0001.gin").read_text() == before
    assert "TOTAL_STEPS = 4" in (tmp_path / "config.gin").read_text()

    code, err = run(*longer)  # Finished and unchanged.
    assert code == 0 and "changed" not in err
    assert not (tmp_path / "config_0002.gin").exists()
    saved = files(tmp_path)
    code, err = run(*args, "--gin_param=TOTAL_STEPS = 3")
    assert code == 1 and "`total_steps` is 3, below step 4" in err
    assert files(tmp_path) == saved


def test_other_training_images_at_resume_are_rejected_unless_allowed(
    run, digit_records, tmp_path
):
    args = [*arguments(digit_records, steps=2, every=2), "--mode=train"]
    args += [model_dir(tmp_path / "run"), "--nojit_compile"]
    assert run(*args)[0] == 0
    moved = shutil.copytree(digit_records, tmp_path / "moved")
    code, err = run(*args, f"--gin_param=TRAIN_PATTERN = '{moved}/train-*'")
    assert code == 0 and "  TRAIN_PATTERN: " in err  # The same images.
    fewer = f"--gin_param=TRAIN_PATTERN = '{digit_records}/train-00000*'"
    saved = files(tmp_path / "run")
    code, err = run(*args, fewer)
    assert code == 1 and "`the training data` was " in err
    assert files(tmp_path / "run") == saved
    allow = "--gin_param=RunOptions.allow_changes = ['train_data']"
    code, err = run(*args, fewer, allow)
    assert code == 0 and "  the training data: " in err


def test_an_experiment_without_its_parts_is_reported_without_a_traceback(run, tmp_path):
    (tmp_path / "bare.gin").write_text("Experiment.batch_size = 8\n")
    code, err = run(f"--gin_file={tmp_path / 'bare.gin'}", model_dir(tmp_path / "run"))
    assert code == 1 and "make_model" in err and "vit-scaling train: error" in err


def test_an_image_that_does_not_decode_is_named_with_file_and_record(
    run, digit_records, tmp_path
):
    source = digit_records / "train-00000-of-00002.tfrecord"
    records = [raw.numpy() for raw in tf.data.TFRecordDataset(str(source)).take(12)]
    example = tf.train.Example.FromString(records[5])
    example.features.feature["image/encoded"].bytes_list.value[0] = b"no image"
    records[5] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "bad-train.tfrecord")) as writer:
        for record in records:
            writer.write(record)
    args = arguments(digit_records, steps=4, every=4)
    pattern = f"--gin_param=TRAIN_PATTERN = '{tmp_path}/bad-*'"
    code, err = run(*args, pattern, model_dir(tmp_path / "run"), "--nojit_compile")
    assert code == 1 and "vit-scaling train: error: " in err
    assert "bad-train.tfrecord" in err and "record 5" in err
    assert len(err.split("vit-scaling train: error: ")[1]) < 1000  # No graph's trace.


def test_a_missing_package_is_reported_with_who_knows_what_installs_it(
    run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "vit_scaling.configurables", None)
    monkeypatch.delattr("vit_scaling.configurables", raising=False)
    code, err = run("--gin_file=quickstart", model_dir(tmp_path / "run"))
    assert code == 1 and "vit-scaling train: error: " in err
    assert "vit-scaling doctor" in err and "Traceback" not in err


def test_flags_of_a_launch_are_those_that_say_how_not_where():
    places = {"gin_file", "gin_param", "model_dir"}
    assert not places & set(train.RUN_FLAGS)
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["train", "--seed=3", "--nojit_compile", "--model_dir=x"])
        text = train._flag_text()
    assert text == "--seed=3\n--nojit_compile\n"


def test_flag_help_names_every_mode_and_distribution():
    text = flags.FLAGS["mode"].help + str(flags.FLAGS["mode"].parser.enum_values)
    for mode in ("train", "eval", "train_and_eval", "continuous_eval"):
        assert mode in text
    values = flags.FLAGS["distribution"].parser.enum_values
    assert [*values] == ["one_device", "mirrored", "multi_worker_mirrored", "tpu"]


def test_help_of_the_installed_command_lists_every_flag():
    code = (
        "import sys; sys.argv[0] = 'vit-scaling train'; from vit_scaling import train"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; train.main()", "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    listed = set(
        re.findall(r"^  (?:-v,)?--(?:\[no\])?(\w+):", done.stdout, re.MULTILINE)
    )
    own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(train)}
    assert listed >= {*own, "verbosity"} and len(own) > 10


def test_importing_the_binary_starts_no_tensorflow():
    code = "import sys, vit_scaling.train; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_sigterm_ends_the_binary_with_a_code_of_its_own(run, monkeypatch, tmp_path):
    def stop(experiment, options, **launch):
        raise PreemptedError("SIGTERM was received: saved at step 7.")

    monkeypatch.setattr(configurables, "Experiment", lambda: None)
    monkeypatch.setattr(runs, "train", stop)
    code, err = run("--gin_file=quickstart", *PATTERNS, model_dir(tmp_path))
    assert code == 75
    assert err.splitlines()[-1] == (
        "vit-scaling train: SIGTERM was received: saved at step 7."
    )
