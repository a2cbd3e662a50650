"""Files and folders of weights: which kind each is, by content first, then by name."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Callable

from vit_scaling import array_files, io_files
from vit_scaling.applications.addresses import is_folder
from vit_scaling.array_files import Arrays

INDEX_SUFFIX = ".safetensors.index.json"
ACCEPTED = (
    "a .npz, .safetensors or .keras file, a run's folder, or a folder of "
    "model.safetensors or its shards"
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file or folder.

    Attributes:
        description: What it is, for messages.
        advice: What to do with a kind that is not read; empty for those that are.
    """

    description: str
    advice: str = ""


RUN = Kind("a run's folder")
KERAS = Kind("a Keras model (.keras)")
NPZ = Kind("an .npz file")
SAFETENSORS = Kind("a .safetensors file, or several")
KERAS_WEIGHTS = Kind(
    "a Keras file of weights alone (.weights.h5), which stores no model",
    "Load it into the model that wrote it (`ViTB16(weights=…)` and the like, or "
    "`model.load_weights`), and give what `model.save('NAME.keras')` writes.",
)
KERAS_H5 = Kind(
    "a Keras model in the older HDF5 form (.h5)",
    "Load it by `keras.saving.load_model`, and give what `model.save('NAME.keras')` "
    "writes.",
)
PYTORCH = Kind(
    "a PyTorch checkpoint, a pickle that can run code and is therefore never opened",
    "Convert its tensors where PyTorch is installed: safetensors.torch.save_file("
    "torch.load(FILE, weights_only=True), 'model.safetensors').",
)
PYTORCH_FOLDER = Kind(
    "a folder of PyTorch checkpoints, pickles that can run code and are never opened",
    "Write it once more where transformers is installed, by from_pretrained(FOLDER)"
    ".save_pretrained(NEW, safe_serialization=True).",
)
SAVED_MODEL = Kind(
    "a SavedModel, which serves outputs and has no named weights",
    "Give the run's folder or the file that it was exported from.",
)
SHARD = Kind(
    "one of several shards of a model", "Give the folder that holds all of them."
)
GIT_LFS = Kind(
    "a pointer of Git LFS in place of the file", "Fetch the file by `git lfs pull`."
)
WEB_PAGE = Kind(
    "a web page, such as a server sends instead of a file",
    "Download the file itself.",
)
ONE_ARRAY = Kind("a single NumPy array (.npy)", f"Give {ACCEPTED}.")


@dataclasses.dataclass(frozen=True)
class Source:
    """A file or folder of weights.

    Attributes:
        path: The file or folder.
        kind: One of this module's kinds.
        files: The files to read, if there are others than `path`.
    """

    path: str
    kind: Kind
    files: tuple[str, ...] = ()

    @property
    def is_model(self) -> bool:
        """Whether Keras reads it as a whole model."""
        return self.kind in (RUN, KERAS)

    def check(self) -> None:
        """Raise ValueError, with advice, if this kind is not read."""
        if self.kind.advice:
            raise ValueError(
                f"{self.path!r} is {self.kind.description}. {self.kind.advice}"
            )

    def read_arrays(self) -> tuple[Arrays, dict[str, str]]:
        """Return all arrays, and the metadata of a single file.

        Raises:
            ValueError: A file is damaged, or this kind is not read.
        """
        self.check()
        if self.kind == NPZ:
            arrays = array_files.read_npz(self.path)
            return arrays, _own_metadata(array_files.read_npz_comment(self.path))
        arrays = {}
        metadata: dict[str, str] = {}
        for file in self.files or (self.path,):
            part, metadata = array_files.read_safetensors(file)
            arrays |= part
        return arrays, metadata


def _own_metadata(comment: str) -> dict[str, str]:
    """Return the metadata in a comment that this package wrote; {} for others."""
    try:
        found = json.loads(comment or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def find_source(path: str) -> Source:
    """Return the kind of a file or folder.

    Raises:
        FileNotFoundError: It is a folder without weights, or lacks a shard.
        ValueError: Neither the content nor the name is known.
    """
    if is_folder(path):
        return _find_in_folder(path)
    if path.endswith(INDEX_SUFFIX):
        return _shards(path, path)
    with open(path, "rb") as file:
        head = file.read(64)
    content = _Content(path, head, _zip_members(path))
    kinds = [kind for kind, matches in _CONTENTS if matches(content)]
    kinds += [kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)]
    if not kinds:
        raise ValueError(
            f"{path!r} is no known file of weights: it begins with {head[:12]!r}. "
            f"Give {ACCEPTED}."
        )
    kind = kinds[0]
    if kind == KERAS and not path.endswith(".keras"):
        raise ValueError(
            f"{path!r} is {KERAS.description}, but Keras reads it only under a name "
            "that ends in .keras. Rename it."
        )
    if kind == SAFETENSORS and re.search(r"-\d+-of-\d+\.safetensors$", path):
        kind = SHARD
    return Source(path, kind)


def _zip_members(path: str) -> tuple[str, ...]:
    """Return the names in a zip archive; () for other files and damaged archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ()  # The reader of the kind that the name says reports the damage.


@dataclasses.dataclass(frozen=True)
class _Content:
    """A file's path, first bytes and, of a zip archive, the names in it."""

    path: str
    head: bytes
    members: tuple[str, ...]

    def is_safetensors(self) -> bool:
        """Whether the file starts with the length of a JSON header, and the header."""
        length = int.from_bytes(self.head[:8], "little")
        return self.head[8:9] == b"{" and 8 + length <= os.path.getsize(self.path)

    def is_keras_h5(self) -> bool:
        """Whether the file is HDF5 and holds a model's configuration."""
        if not self.head.startswith(b"\x89HDF"):
            return False
        import h5py  # Comes with Keras.

        try:
            with h5py.File(self.path) as file:
                return "model_config" in file.attrs
        except OSError:  # Truncated; the reader reports it.
            return False


# Kinds by content, in the order in which they are tried.
_CONTENTS: tuple[tuple[Kind, Callable[[_Content], bool]], ...] = (
    (KERAS, lambda file: "model.weights.h5" in file.members),
    (PYTORCH, lambda file: any(n.endswith("data.pkl") for n in file.members)),
    (NPZ, lambda file: any(n.endswith(".npy") for n in file.members)),
    (SAFETENSORS, _Content.is_safetensors),
    (KERAS_H5, _Content.is_keras_h5),
    (KERAS_WEIGHTS, lambda file: file.head.startswith(b"\x89HDF")),
    (PYTORCH, lambda file: re.match(rb"\x80[\x02-\x05]", file.head) is not None),
    (ONE_ARRAY, lambda file: file.head.startswith(b"\x93NUMPY")),
    (GIT_LFS, lambda file: file.head.startswith(b"version https://git-lfs")),
    (
        WEB_PAGE,
        lambda file: re.match(rb"\s*<(!doctype|html)", file.head, re.I) is not None,
    ),
)
# Damaged files have only their names; their readers then say what is wrong.
_SUFFIXES = {
    ".npz": NPZ,
    ".safetensors": SAFETENSORS,
    ".keras": KERAS,
    ".h5": KERAS_WEIGHTS,
    **dict.fromkeys((".bin", ".pth", ".pt"), PYTORCH),
}


def _find_in_folder(path: str) -> Source:
    """Return the kind of a folder; an address is a run's, which is read in place."""
    if "://" in path:
        return Source(path, RUN)
    names = sorted(os.listdir(path))
    if "model.json" in names or "checkpoints" in names:
        return Source(path, RUN)
    for name in names:
        if name.endswith(INDEX_SUFFIX):
            return _shards(path, os.path.join(path, name))
    if "model.safetensors" in names:
        file = os.path.join(path, "model.safetensors")
        return dataclasses.replace(find_source(file), files=(file,))
    if "saved_model.pb" in names:
        return Source(path, SAVED_MODEL)
    if any(re.match(r"pytorch_model.*\.(bin|json)$", name) for name in names):
        return Source(path, PYTORCH_FOLDER)
    raise FileNotFoundError(
        f"Folder {path!r} holds no weights: it has neither model.json and checkpoints/ "
        "(a run) nor model.safetensors (a published model). It holds "
        f"{', '.join(names[:5]) or 'nothing'}."
    )


def _shards(path: str, index: str) -> Source:
    """Return the files that an index of shards names.

    Raises:
        FileNotFoundError: One does not exist.
        ValueError: The index is damaged.
    """
    content = io_files.read_json(index)
    if not isinstance(content, dict) or not content.get("weight_map"):
        raise ValueError(
            f"{index!r} is no index of shards: it has no 'weight_map'. Download it "
            "again."
        )
    folder = os.path.dirname(index)
    files = [
        os.path.join(folder, name)
        for name in sorted(set(content["weight_map"].values()))
    ]
    missing = [os.path.basename(file) for file in files if not os.path.isfile(file)]
    if missing:
        raise FileNotFoundError(
            f"{index!r} names shards that do not exist: {', '.join(missing[:5])}. "
            "Download all of them into its folder."
        )
    return Source(path, SAFETENSORS, tuple(files))
