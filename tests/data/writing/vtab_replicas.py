"""Small copies of the published files of VTAB's sets, and TFDS' builders run on them.

An image's brightness says its label, so that a test can tell whether they belong
together: `brightness(label)` in each pixel, where the set's images are free.
"""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import csv
import io
import json
import tarfile
import warnings
import zipfile
from unittest import mock

import numpy as np
import tensorflow as tf
from etils import epath

from tests.data import sets

SIZES = {"train": 40, "validation": 20, "test": 30}
EUROSAT = ("AnnualCrop", "Forest", "River")
RESISC45 = ("airplane", "beach", "wetland")
DTD = ("banded", "zigzagged")


def brightness(label):
    return 20 + 2 * label


def pixels(label, *shape):
    return np.full(shape, brightness(label), np.uint8)


def write_image(path, label, side=32, form="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sets.encoded(pixels(label, side, side, 3), form))


def caltech101(root):
    archive = root / "caltech101/caltech-101/101_ObjectCategories.tar.gz"
    for number, name in ((0, "accordion"), (2, "anchor"), (101, "yin_yang")):
        for image in range(36):  # 30 of them are training images.
            file = archive / "101_ObjectCategories" / name / f"image_{image:04d}.jpg"
            write_image(file, number)
    return {"download?urn=caltech": root / "caltech101", "": root / "caltech101"}


def cifar100(root):
    folder = root / "cifar/cifar-100-binary"
    folder.mkdir(parents=True)
    for part, size in (("train", SIZES["train"]), ("test", SIZES["test"])):
        rows = [
            bytes([0, n % 100]) + pixels(n % 100, 3072).tobytes() for n in range(size)
        ]
        (folder / f"{part}.bin").write_bytes(b"".join(rows))
    for name, count in (("coarse", 20), ("fine", 100)):
        names = "".join(f"{name} {n}\n" for n in range(count))
        (folder / f"{name}_label_names.txt").write_text(names)
    return {"cifar-100-binary.tar.gz": root / "cifar"}


def dtd(root):
    for part, size in (("train1", 40), ("val1", 20), ("test1", 30)):
        names = []
        for n in range(size):
            name = DTD[n % 2]
            names.append(f"{name}/{name}_{part}_{n:04d}.jpg")
            write_image(root / "dtd/dtd/images" / names[-1], (0, 46)[n % 2])
        listed = root / f"dtd/dtd/labels/{part}.txt"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text("\n".join(names) + "\n")
    return {"dtd-r1.0.1.tar.gz": root / "dtd"}


def oxford_flowers102(root):
    import scipy.io

    total = sum(SIZES.values())
    labels = np.arange(total) % 102 + 1  # They count from 1.
    for n, label in enumerate(labels):
        write_image(root / f"flowers/jpg/image_{n + 1:05d}.jpg", label - 1)
    ids = np.split(np.arange(total) + 1, [40, 60])
    parts = dict(zip(("trnid", "valid", "tstid"), ids, strict=True))
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels[None]})
    scipy.io.savemat(root / "setid.mat", {k: v[None] for k, v in parts.items()})
    return {
        "102flowers.tgz": root / "flowers",
        "imagelabels.mat": root / "imagelabels.mat",
        "setid.mat": root / "setid.mat",
    }


def oxford_iiit_pet(root):
    images, notes = root / "pets/images", root / "pets/annotations"
    for part, size in (("trainval", SIZES["train"]), ("test", SIZES["test"])):
        lines = []
        for n in range(size):
            name = f"pet_{part}_{n}"
            write_image(images / f"{name}.jpg", n % 37)
            path = notes / "trimaps" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sets.encoded(np.ones((32, 32), np.uint8), "PNG"))
            lines.append(f"{name} {n % 37 + 1} 1 1\n")
        (notes / f"{part}.txt").write_text("".join(lines))
    return {"images.tar.gz": root / "pets", "annotations.tar.gz": root / "pets"}


def sun397(root):
    import tensorflow_datasets as tfds

    lists = epath.Path(tfds.__file__).parent / "datasets/sun397"
    if not (lists / "sun397_tfds_tr.txt").exists():
        lists = epath.Path(tfds.__file__).parent / "image_classification"
    labels = (lists / "sun397_labels.txt").read_text().split()
    path = root / "SUN397.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for part, size in (("tr", 40), ("va", 20), ("te", 30)):
            names = (lists / f"sun397_tfds_{part}.txt").read_text().split()
            for name in names[:: len(names) // size]:
                number = labels.index(name.rpartition("/")[0])
                content = sets.encoded(pixels(number % 100, 32, 32, 3), "JPEG")
                member = tarfile.TarInfo(f"SUN397{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {"SUN397.tar.gz": path, "Partitions.zip": root}


def svhn_cropped(root):
    import scipy.io

    for part, size in (("train", 40), ("test", 30), ("extra", 1)):
        digits = np.arange(size) % 10
        images = np.stack([pixels(d, 32, 32, 3) for d in digits], axis=-1)
        labels = np.where(digits == 0, 10, digits)[:, None]  # 0 is stored as 10.
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": images, "y": labels})
    return {
        f"{p}_32x32.mat": root / f"{p}_32x32.mat" for p in ("train", "test", "extra")
    }


def patch_camelyon(root):
    import h5py

    files = {}
    for part, size in (("train", 40), ("valid", 20), ("test", 30)):
        labels = np.arange(size) % 2
        images = np.stack([pixels(label, 96, 96, 3) for label in labels])
        for key, values in (("x", images), ("y", labels.reshape(-1, 1, 1, 1))):
            name = f"camelyonpatch_level_2_split_{part}_{key}.h5"
            with h5py.File(root / name, "w") as file:
                file[key] = values
            files[f"{name}.gz"] = root / name
    return files


def eurosat(root):
    for n in range(60):
        name = EUROSAT[n % 3]
        label = (0, 1, 8)[n % 3]
        write_image(root / f"eurosat/2750/{name}/{name}_{n}.jpg", label, 64)
    return {"EuroSAT.zip": root / "eurosat", "": root / "eurosat"}


def resisc45(root):
    for n in range(60):
        name = RESISC45[n % 3]
        file = root / f"manual/NWPU-RESISC45/{name}/{name}_{n:03d}.jpg"
        write_image(file, (0, 4, 44)[n % 3], 256)
    return {}


def diabetic_retinopathy_detection(root):
    """Of the builder's picture only the size is left: it takes away the brightness."""
    manual = root / "manual"
    for folder, size in (("sample", 1), ("train", 40), ("test", 50)):
        for n in range(size):
            write_image(manual / folder / f"{n}_left.jpeg", n % 5, 64)
    with (manual / "trainLabels.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "level"])
        rows.writerows([f"{n}_left", n % 5] for n in range(40))
    with (root / "retinopathy_solution.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "level", "Usage"])
        usages = ["Public"] * 20 + ["Private"] * 30
        rows.writerows([f"{n}_left", n % 5, use] for n, use in enumerate(usages))
    return {"": root / "retinopathy_solution.csv"}


def clevr(root):
    folder = root / "clevr/CLEVR_v1.0"
    for part, size in (("train", 60), ("val", 30), ("test", 1)):
        scenes = []
        for n in range(size):
            name = f"CLEVR_{part}_{n:06d}.png"
            write_image(folder / "images" / part / name, n % 8, form="PNG")
            nearest = (7.0, 8.2, 8.7, 9.2, 9.7, 11.0)[n % 6]
            depths = [nearest, *[12.0] * (n % 8 + 2)]  # 3 to 10 objects.
            scenes.append({"objects": [_object_of_clevr(depth) for depth in depths]})
        for kind, content in (("scenes", scenes), ("questions", [])):
            path = folder / kind / f"CLEVR_{part}_{kind}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({kind: content}))
    return {"CLEVR_v1.0.zip": root / "clevr"}


def _object_of_clevr(depth):
    return {
        "color": "gray", "material": "metal", "shape": "cube", "size": "small",
        "rotation": 0.0, "pixel_coords": [1.0, 2.0, depth], "3d_coords": [0.0] * 3,
    }  # fmt: skip


def dmlab(root):
    for part, size in SIZES.items():
        path = str(root / f"dmlab-{part}.tfrecord-00000-of-00001")
        with tf.io.TFRecordWriter(path) as writer:
            for n in range(size):
                image = sets.encoded(pixels(n % 6, 360, 480, 3), "JPEG")
                example = tf.train.Example()
                feature = example.features.feature
                feature["image"].bytes_list.value.append(image)
                feature["filename"].bytes_list.value.append(f"{part}{n}".encode())
                feature["label"].int64_list.value.append(n % 6)
                writer.write(example.SerializeToString())
    return {"dmlab.tar.gz": root}


def dsprites(root):
    """A white rectangle: its height says the position, its width the orientation."""
    import h5py

    count = 100
    x, orientation = np.arange(count) % 32, np.arange(count) % 40
    images = np.zeros((count, 64, 64), np.uint8)
    for image, height, width in zip(images, x, orientation, strict=True):
        image[: height + 1, : width + 1] = 1
    classes = np.zeros((count, 6), np.int64)
    classes[:, 4], classes[:, 3] = x, orientation
    name = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5"
    with h5py.File(root / name, "w") as file:
        file["imgs"] = images
        file["latents/classes"], file["latents/values"] = classes, classes * 1.0
    return {f"{name}?raw=true": root / name}


def kitti(root):
    """Nearest vehicles at 5, 15 and 25 m, and only a pedestrian."""
    with (
        zipfile.ZipFile(root / "data_object_image_2.zip", "w") as images,
        zipfile.ZipFile(root / "data_object_label_2.zip", "w") as labels,
    ):
        for n in range(80):
            name, label = f"training/{{}}/{n:06d}.{{}}", n % 4
            encoded = sets.encoded(pixels(label, 32, 32, 3), "PNG")
            images.writestr(name.format("image_2", "png"), encoded)
            kind = ("Car", "Van", "Truck", "Pedestrian")[label]
            depth = (5.0, 15.0, 25.0, 2.0)[label]
            rows = [f"{kind} 0.00 0 0.0 1 1 9 9 1.5 1.5 3.0 1.0 1.0 {depth} 0.0"]
            rows += ["Car 0.00 0 0.0 1 1 9 9 1.5 1.5 3.0 1.0 1.0 60.0 0.0"] * (
                label < 3
            )
            rows += ["DontCare -1 -1 -10 1 1 9 9 -1 -1 -1 -1000 -1000 -1000 -10"]
            labels.writestr(name.format("label_2", "txt"), "\n".join(rows))
    with zipfile.ZipFile(root / "devkit_object.zip", "w") as devkit:
        order = ",".join(str(n + 1) for n in range(80))
        videos = "\n".join(f"2011_09_26 video_{n // 8} {n:010d}" for n in range(80))
        devkit.writestr("mapping/train_rand.txt", order)
        devkit.writestr("mapping/train_mapping.txt", videos)
    names = ("data_object_image_2.zip", "data_object_label_2.zip", "devkit_object.zip")
    return {name: root / name for name in names}


def smallnorb(root):
    files = {}
    for part, size in (("46789x9x18x6x2x96x96-training", 40),
                       ("01235x9x18x6x2x96x96-testing", 60)):  # fmt: skip
        azimuth, elevation = np.arange(size) % 18, np.arange(size) % 9
        info = np.stack([azimuth * 0, elevation, azimuth * 2, azimuth * 0], axis=1)
        matrices = {
            "dat": np.stack([pixels(a, 2, 96, 96) for a in azimuth]),
            "cat": np.zeros(size, "<i4"),
            "info": info.astype("<i4"),
        }
        for kind, values in matrices.items():
            name = f"smallnorb-5x{part}-{kind}.mat"
            (root / name).write_bytes(_norb_matrix(values))
            files[f"{name}.gz"] = root / name
    return files


def _norb_matrix(values):
    magic = 507333717 if values.dtype == np.uint8 else 507333716
    shape = [*values.shape, *[1] * (3 - values.ndim)]
    header = np.array([magic, values.ndim, *shape], "<i4")
    return header.tobytes() + values.tobytes()


def prepare(dataset, root, data_dir):
    """Write the copy of a set, and let TFDS' own builder prepare it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TFDS' own.
        import tensorflow_datasets as tfds

        (root / "manual").mkdir(parents=True, exist_ok=True)
        files = globals()[dataset.partition("/")[0]](root)
        builder = tfds.builder(dataset, data_dir=str(data_dir))
        config = tfds.download.DownloadConfig(manual_dir=str(root / "manual"))
        with _downloads(files):
            builder.download_and_prepare(download_config=config)
    return builder


@contextlib.contextmanager
def _downloads(files):
    """Context manager: TFDS finds these files in place of its downloads."""
    import tensorflow_datasets as tfds

    def find(_, wanted):
        if isinstance(wanted, dict):
            return {key: find(_, value) for key, value in wanted.items()}
        url = getattr(wanted, "url", wanted)
        name = url.rsplit("/", 1)[-1]
        return epath.Path(files[name] if name in files else files[""])

    with mock.patch.multiple(
        tfds.download.DownloadManager,
        download=find,
        download_and_extract=find,
        extract=lambda _, path: path,
    ):
        yield
