"""The one resolver of sources of weights: paths, names and addresses to local paths."""
# SPDX-License-Identifier: Apache-2.0

import os
import re
from urllib.parse import urlsplit

from vit_scaling.applications import downloads, published
from vit_scaling.io_files import is_remote
from vit_scaling.naming import did_you_mean

SUFFIXES = (".npz", ".safetensors", ".keras", ".h5")
AUGREG = "augreg:"
_AUGREG_FOLDER = "gs://vit_models/augreg/"
# Short names in the authors' code (big_vision/models/vit.py, VANITY_NAMES) of weights
# whose accuracy is not published, so that `published.csv` does not list them.
# fmt: off
UNLISTED: dict[str, str] = {
    "howto-i21k-Ti/16": "augreg:Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",  # noqa: E501
    "howto-i21k-S/32": "augreg:S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0",
    "howto-i21k-S/16": "augreg:S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",  # noqa: E501
    "howto-i21k-B/32": "augreg:B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0",  # noqa: E501
    "howto-i21k-B/16": "augreg:B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",  # noqa: E501
    "howto-i21k-L/16": "augreg:L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0",  # noqa: E501
    "i1k-s16-150ep": "gs://big_vision/vit_s16_i1k_150ep.npz",
    "i1k-s16-300ep": "gs://big_vision/vit_s16_i1k_300ep.npz",
}
# fmt: on


def resolve(source: str, *, shape: str | None = None) -> str:
    """Return the path or address of a source, downloading nothing.

    Args:
        source: A path, a published name, "imagenet" or an address; see `local_path`.
        shape: Name of the shape that "imagenet" is for.

    Raises:
        FileNotFoundError: `source` is not a file, folder, published name or address.
        ValueError: "imagenet" has no default for the shape.
    """
    source = os.path.expanduser(os.fspath(source))
    if not is_remote(source) and os.path.exists(source):
        return source
    if source == published.IMAGENET:
        source = published.imagenet_default(shape)
    named = published.addresses_by_name() | UNLISTED
    address = re.sub(r"(\.npz):[\w/]+$", r"\1", named.get(source, source))
    if address.startswith(AUGREG):
        name = address.removeprefix(AUGREG).removesuffix(".npz")
        return f"{_AUGREG_FOLDER}{name}.npz"
    if not is_remote(address) and not os.path.exists(address):
        raise FileNotFoundError(
            f"No weights found at {source!r}. It is not a file, folder, address or "
            f"name of published weights.{published.suggest_name(source)}"
        )
    return address


def local_path(source: str, *, shape: str | None = None) -> str:
    """Return the path of a file or folder, downloading what is not local.

    Args:
        source: One of:
            - the path of a file, of a run's folder, or of a folder that transformers
              or timm saved;
            - a name in `vit_scaling.list_weights()`, or the authors' name;
            - "imagenet", the default of the shape;
            - "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION", a Hugging Face repository
              of timm or transformers;
            - "augreg:NAME", a file of vision_transformer's AugReg, without ".npz";
            - an http(s):// or gs:// address, or one that `tf.io.gfile` reads. The
              authors' ":img" after a file's name is ignored.
        shape: Name of the shape that "imagenet" is for.

    Returns:
        The path; downloads are kept in the cache of Keras or `huggingface_hub`. The
        address of a run's folder (without a file's suffix) is returned unchanged, since
        it is read in place.

    Raises:
        FileNotFoundError: `source` is not a file, folder, published name or address.
        ValueError: An http(s) address does not end in a suffix of weights files, or
            "imagenet" has no default for the shape.
        ImportError: An hf:// address, and `huggingface_hub` is not installed.
        OSError: The address can't be downloaded.
    """
    address = resolve(source, shape=shape)
    if "://" not in address:
        return address
    is_http = address.startswith(("http://", "https://"))
    if is_http and not has_suffix(address, SUFFIXES):
        raise ValueError(
            f"The path of {address!r} must end in {', '.join(SUFFIXES)}. Download "
            "other sources, such as a run folder, and give their path."
        )
    is_hub = address.startswith(downloads.HUB)
    if is_folder(address) and not is_hub:
        return address
    try:
        fetch = downloads.fetch_repository if is_hub else downloads.fetch_file
        return fetch(address)
    except FileNotFoundError as error:
        known = set(published.addresses_by_name().values()) - {source}
        raise FileNotFoundError(f"{error}{did_you_mean(source, known)}") from error


def is_folder(path: str) -> bool:
    """Whether this is a local folder, or an address without a file's suffix."""
    if is_remote(path):
        return not has_suffix(path, SUFFIXES)
    return os.path.isdir(path)


def has_suffix(source: str, suffixes: str | tuple[str, ...]) -> bool:
    """Whether a path, or an address without its query, has one of the suffixes."""
    return (urlsplit(source).path if "://" in source else source).endswith(suffixes)
