"""Few-shot accuracies: the authors' images, seeds and shots; intervals; wrong input."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tests.evaluation import sets
from tests.oracles import fewshot as oracle
from vit_scaling.evaluation import fewshot
from vit_scaling.evaluation.fewshot import Accuracy, FeatureSet


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("shots", [1, 3, 12])
def test_seed_takes_the_authors_images(seed, shots):
    labels = sets.blobs().train_labels
    order = fewshot.permute_classes(labels, 7, seed)
    mine = np.concatenate([indices[:shots] for indices in order])
    np.testing.assert_array_equal(mine, oracle.chosen(labels, 7, shots, seed))


def test_accuracies_are_the_oracles():
    data = sets.blobs(noise=1.5)
    shots, seeds, strengths = (1, 5, 10), (0, 1, 2), (1.0, 1024.0)
    found = fewshot.compute_accuracies(
        data, shots=shots, seeds=seeds, strengths=strengths
    )
    for strength in strengths:
        for number in shots:
            for seed, accuracy in zip(
                seeds, found[strength][number].per_seed, strict=True
            ):
                rows = oracle.chosen(data.train_labels, 7, number, seed)
                scores = oracle.scores(
                    data.train_features[rows],
                    data.train_labels[rows],
                    data.test_features,
                    7,
                    strength,
                )
                unclear = np.mean(~oracle.clear(scores))
                right = np.mean(scores.argmax(axis=1) == data.test_labels)
                assert abs(accuracy - right) <= unclear + 1e-12


def test_more_shots_help_and_chance_is_passed():
    data = sets.blobs(train=30, test=50, noise=1.5)
    found = fewshot.compute_accuracies(data)[1024.0]
    means = [found[number].mean for number in (1, 5, 10, 25)]
    assert means == sorted(means)
    assert means[0] > 2 / 7


def test_interval_is_students_t():
    values = (0.61, 0.64, 0.70)
    accuracy = Accuracy(values)
    expected = stats.t.interval(
        0.95, df=2, loc=np.mean(values), scale=stats.sem(values)
    )
    np.testing.assert_allclose(accuracy.interval, expected, rtol=1e-12)
    assert accuracy.mean == pytest.approx(0.65)


def test_single_seed_has_no_interval():
    assert np.isnan(Accuracy((0.5,)).interval).all()


def test_file_of_arrays_gives_the_same_set(tmp_path):
    data = sets.blobs()
    arrays = dataclasses.asdict(data)
    arrays.pop("classes")
    np.savez(tmp_path / "features.npz", **arrays)
    read = FeatureSet.from_file(str(tmp_path / "features.npz"))
    assert read.classes == 7
    np.testing.assert_array_equal(read.train_features, data.train_features)
    np.testing.assert_array_equal(read.test_labels, data.test_labels)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        FeatureSet.from_file(str(tmp_path / "no.npz"))
    np.savez(tmp_path / "half.npz", train_features=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="it has no train_labels, test_features"):
        FeatureSet.from_file(str(tmp_path / "half.npz"))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        FeatureSet.from_file(str(tmp_path / "one.npy"))
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        FeatureSet.from_file(str(tmp_path / "text.npz"))
    whole = (tmp_path / "half.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        FeatureSet.from_file(str(tmp_path / "cut.npz"))
    damaged = bytearray(whole)
    damaged[whole.index(b"NUMPY") + 130] ^= 1  # Its checksum tells.
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        FeatureSet.from_file(str(tmp_path / "damaged.npz"))
    objects = np.array([{}], dtype=object)
    names = ("train_features", "train_labels", "test_features", "test_labels")
    np.savez(tmp_path / "objects.npz", **dict.fromkeys(names, objects))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        FeatureSet.from_file(str(tmp_path / "objects.npz"))


def test_set_is_written_whole_and_into_a_folder_that_is_there(tmp_path, monkeypatch):
    data = sets.blobs()
    data.to_file(str(tmp_path / "kept"))  # No suffix is added.
    kept = (tmp_path / "kept").read_bytes()
    again = FeatureSet.from_file(str(tmp_path / "kept"))
    np.testing.assert_array_equal(again.test_features, data.test_features)

    def fails(file, array, **settings):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fails)
    with pytest.raises(OSError, match="No space left"):
        data.to_file(str(tmp_path / "kept"))
    assert (tmp_path / "kept").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(FileNotFoundError, match=r"The folder .* does not exist"):
        data.to_file(str(tmp_path / "none" / "f.npz"))


X, Y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_features": X[0]}, "`train_features` must be floats of shape"),
        ({"train_features": X.astype(int)}, "received int64 of shape"),
        ({"test_labels": Y[:3]}, "`test_labels` must be 4 integers"),
        ({"test_labels": Y.astype(float)}, "received float64"),
        ({"test_labels": Y - 1}, "numbers of classes"),
        ({"test_features": X[:, :2]}, "received widths 3 .* and 2"),
        (
            {"test_labels": np.array([0, 0, 0, 0])},
            "test_labels has no image of class 1",
        ),
        ({"train_labels": Y + 1}, "train_labels has no image of class 0"),
        ({"classes": 1}, "must be below `classes`=1; received 1"),
        ({"classes": 20}, "classes 2, 3, 4, 5, 6 and 13 more"),
        ({"train_features": X * np.nan}, "not finite, in 4 rows"),
    ],
)
def test_sets_that_do_not_fit_together_are_refused(change, message):
    arrays = {
        "train_features": X,
        "train_labels": Y,
        "test_features": X,
        "test_labels": Y,
    }
    with pytest.raises(ValueError, match=message):
        FeatureSet(**{**arrays, **change})


def test_fewer_images_than_shots_are_refused():
    with pytest.raises(ValueError, match=r"`shots`=25 needs .* fewer of classes 0, 1"):
        fewshot.compute_accuracies(sets.blobs(train=12), shots=(1, 25))


@pytest.mark.parametrize(
    "options", [{"shots": ()}, {"shots": (0,)}, {"seeds": ()}, {"strengths": (0.0,)}]
)
def test_empty_or_negative_choices_are_refused(options):
    with pytest.raises(ValueError, match="must be one or more different numbers"):
        fewshot.compute_accuracies(sets.blobs(), **{"shots": (1,), **options})


@pytest.mark.parametrize(
    "options", [{"shots": (1, 1)}, {"seeds": (0, 0, 0)}, {"strengths": (1.0, 1.0)}]
)
def test_numbers_that_come_twice_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"`{name}` must be one or more different"):
        fewshot.compute_accuracies(sets.blobs(), **{"shots": (1,), **options})
