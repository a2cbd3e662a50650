"""Train the same small ViT with this package and with big_vision, and compare them."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np

import vit_scaling
from vit_scaling.commands.benchmarks import parity_data, records
from vit_scaling.commands.benchmarks.records import Table
from vit_scaling.scaling.studies.child_process import run_and_show

SIDES = {"vit_scaling": "parity_run", "big_vision": "parity_peer"}
LABELS = {"vit_scaling": "this package", "big_vision": "big_vision"}
PEER_PACKAGES = ("jax", "flax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: both sides' environments, the images, and the runs' settings."""
    add = parser.add_argument
    add("--images", metavar="FILE", required=True,
        help="tar of CIFAR-10 as train/CLASS/*.jpg and test/CLASS/*.jpg")  # fmt: skip
    add(
        "--big_vision",
        metavar="FOLDER",
        required=True,
        help="folder of big_vision's sources",
    )
    add("--python", metavar=records.PYTHON, required=True,
        help="Python with jax, flax, optax, einops and ml_collections")  # fmt: skip
    add("--output_dir", metavar="FOLDER", default="parity",
        help="runs, images, parity.json and figure; a repeated command continues "
        "there")  # fmt: skip
    add("--epochs", type=int, default=20, help="length of a run")
    add("--seeds", default="0,1,2", help="seeds; each is one run of either side")
    add("--batch_size", type=int, default=256, help="images of a step")
    for name, default in (("patch", 8), ("width", 96), ("depth", 3), ("heads", 3)):
        add(f"--{name}", type=int, default=default, help="of the model")
    add("--learning_rate", type=float, default=8e-4, help="peak rate")
    add("--warmup_epochs", type=float, default=1.0, help="length of the warm-up, and "
        "time scale of the rate's fall")  # fmt: skip
    add("--cooldown_epochs", type=float, default=4.0, help="length of the cooldown")


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Run what is missing, seed by seed; return both sides' accuracies by epoch.

    Both sides have the paper's loss, modified Adafactor, weight decays, clipping and
    schedule (App. B and C), the same batches for the same seed, and their own initial
    weights, drawn from the same distributions.
    """
    folder = pathlib.Path(arguments.output_dir).resolve()
    images, classes = decode_images(arguments.images, folder / "images.npz")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    top1: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    names = {field.name for field in dataclasses.fields(parity_data.Settings)}
    flags = {name: value for name, value in vars(arguments).items() if name in names}
    for seed in seeds:
        for side, module in SIDES.items():
            settings = parity_data.Settings(
                **{**flags, "images": str(images), "seed": seed, "classes": classes},
                folder=str(folder / f"{side}_{seed}"),
                timescale_epochs=arguments.warmup_epochs,
                head_decay=3.0,
                body_decay=0.03,
                clip_norm=1.0,
            )
            top1[side].append(_run_side(side, module, settings, arguments))
    result = {"epochs": arguments.epochs, "seeds": seeds, "top1": top1}
    result.update(compare({side: [r[-1] for r in top1[side]] for side in SIDES}))
    (folder / "parity.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(top1, folder / "parity")
    return result


def decode_images(archive: str, path: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Decode the images once; return the path of the arrays and the number of classes.

    Args:
        archive: Tar of train/CLASS/*.jpg and test/CLASS/*.jpg, in any folder.
        path: File to write, if it does not exist yet.
    """
    if not path.exists():
        sets: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = pathlib.PurePosixPath(member.name).parts
                if member.isfile() and len(parts) > 2 and parts[-3] in sets:
                    pixels = _decode(tar.extractfile(member))
                    sets[parts[-3]].append((parts[-2], pixels))
        classes = sorted({label for label, _ in sets["train"]})
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        for name, rows in sets.items():
            arrays[f"{name}_images"] = np.stack([image for _, image in rows])
            arrays[f"{name}_labels"] = np.array([classes.index(c) for c, _ in rows])
        new = path.with_suffix(".new.npz")
        np.savez(new, **arrays)
        os.replace(new, path)
    return path, int(parity_data.read_images(str(path)).train_labels.max()) + 1


def _decode(file: Any) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(file).convert("RGB"))


def _run_side(
    side: str,
    module: str,
    settings: parity_data.Settings,
    arguments: argparse.Namespace,
) -> list[float]:
    """Return a run's accuracies; train first, or continue, if it has not ended.

    Raises:
        ValueError: The folder has a run with other settings.
        RuntimeError: The training failed.
    """
    top1 = settings.stored_result()
    if top1 is not None:
        return top1
    paths, python = [str(pathlib.Path(vit_scaling.__file__).parents[1])], sys.executable
    if side == "big_vision":
        paths.append(str(pathlib.Path(arguments.big_vision).resolve()))
        python = arguments.python
    log = pathlib.Path(settings.folder).with_suffix(".log")
    command = ["env", f"PYTHONPATH={os.pathsep.join(paths)}", python]
    command += ["-m", f"{__package__}.{module}"]
    code = run_and_show([*command, json.dumps(dataclasses.asdict(settings))], log)
    top1 = settings.stored_result()
    if code or top1 is None:
        raise RuntimeError(
            f"The run of {side} failed with exit code {code}; see {log}."
        )
    return top1


def compare(final: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return means, the difference, and its standard error over seeds.

    Args:
        final: Last accuracies of each side, a value per seed.
    """
    ours, peer = (np.array(final[side]) for side in SIDES)
    result: dict[str, Any] = {
        "mean": {side: float(np.mean(values)) for side, values in final.items()},
        "difference": float(ours.mean() - peer.mean()),
        "standard_error": None,
        "within_two_standard_errors": None,
    }
    if len(ours) > 1:
        error = float(np.sqrt((ours.var(ddof=1) + peer.var(ddof=1)) / len(ours)))
        result["standard_error"] = error
        result["within_two_standard_errors"] = abs(result["difference"]) <= 2 * error
    return result


def draw(top1: Mapping[str, list[list[float]]], path: pathlib.Path) -> None:
    """Draw each side's accuracy by epoch: its mean, and the range over seeds."""
    from vit_scaling.scaling.laws import plot_style

    figure, panels = plot_style.make_figure([["curves"]], size=(5.6, 3.8))
    axes = panels["curves"]
    styles = (plot_style.PALETTE[0], "-"), (plot_style.PALETTE[5], "--")
    for (side, curves), (colour, line) in zip(top1.items(), styles, strict=True):
        percent = 100 * np.array(curves)
        epochs = np.arange(1, percent.shape[1] + 1)
        seeds = len(curves)
        of = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
        axes.plot(epochs, percent.mean(axis=0), line, color=colour, marker=".",
                  label=f"{side}, {of}")  # fmt: skip
        axes.fill_between(epochs, percent.min(axis=0), percent.max(axis=0),
                          color=colour, alpha=0.2, linewidth=0)  # fmt: skip
    axes.set(xlabel="Epochs", ylabel="Top-1 accuracy on the test images (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=True)
    axes.legend(loc="lower right", frameon=False)
    plot_style.save_figure(figure, path)


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the accuracies of both sides at some epochs, by seed and their means."""
    last = result["epochs"]
    epochs = sorted({1, *(max(1, last * quarter // 4) for quarter in range(1, 5))})
    rows = []
    for side, curves in result["top1"].items():
        named = [
            *((f"seed {s}", c) for s, c in zip(result["seeds"], curves, strict=True)),
            ("mean", np.mean(curves, axis=0)),
        ]
        for name, curve in named:
            cells = {f"epoch {e}": f"{curve[e - 1]:.1%}" for e in epochs}
            rows.append({"run": f"{LABELS[side]}, {name}", **cells})
    columns = {
        "run": "top-1 on the test images",
        **{f"epoch {e}": f"epoch {e}" for e in epochs},
    }
    title = "Whole trainings: this package and big_vision"
    return [records.make_table("parity", "Training", title, columns, rows)]


def show(result: Mapping[str, Any]) -> str:
    """Return the table, and the difference of the means."""
    text = records.show(tables(result))
    if result["standard_error"] is None:
        return text
    return (
        f"{text}\nDifference {100 * result['difference']:+.2f} points, standard error "
        f"{100 * result['standard_error']:.2f}."
    )
