"""Published weights by name, and how a name or address becomes a file on this disk."""
# SPDX-License-Identifier: Apache-2.0

import difflib
import os
import re
import tempfile
from urllib.parse import urlsplit

import keras

ENDINGS = (".npz", ".safetensors", ".keras", ".h5")
_AUGREG = "gs://vit_models/augreg/"
_SIGLIP = "gs://big_vision/siglip/webli_en_"
_SIGLIP2 = "gs://big_vision/siglip2/siglip2_"

# fmt: off
# The authors' own short names (big_vision/models/vit.py, VANITY_NAMES).
PUBLISHED: dict[str, str] = {
    # Steiner et al. 2022, pre-trained on ImageNet-21k: class token, old layout.
    "howto-i21k-Ti/16": _AUGREG + "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz",  # noqa: E501
    "howto-i21k-S/32": _AUGREG + "S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0.npz",  # noqa: E501
    "howto-i21k-S/16": _AUGREG + "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz",  # noqa: E501
    "howto-i21k-B/32": _AUGREG + "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0.npz",  # noqa: E501
    "howto-i21k-B/16": _AUGREG + "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz",  # noqa: E501
    "howto-i21k-L/16": _AUGREG + "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0.npz",  # noqa: E501
    # Beyer et al. 2022, ImageNet-1k: global average, sin-cos positions.
    "i1k-s16-90ep": "gs://big_vision/vit_s16_i1k_90ep.npz",
    "i1k-s16-150ep": "gs://big_vision/vit_s16_i1k_150ep.npz",
    "i1k-s16-300ep": "gs://big_vision/vit_s16_i1k_300ep.npz",
    # Zhai et al. 2023, SigLIP image towers: this paper's MAP head.
    "SigLIP B/16 224": _SIGLIP + "b16_224_63724782.npz",
    "SigLIP B/16 256": _SIGLIP + "b16_256_60500360.npz",
    "SigLIP B/16 384": _SIGLIP + "b16_384_68578854.npz",
    "SigLIP B/16 512": _SIGLIP + "b16_512_68580893.npz",
    "SigLIP L/16 256": _SIGLIP + "l16_256_60552751.npz",
    "SigLIP L/16 384": _SIGLIP + "l16_384_63634585.npz",
    "SigLIP So400m/14 224": _SIGLIP + "so400m_224_57633886.npz",
    "SigLIP So400m/14 384": _SIGLIP + "so400m_384_58765454.npz",
    # Tschannen et al. 2025, SigLIP 2.
    "SigLIP2 B/16 224": _SIGLIP2 + "b16_224.npz",
    "SigLIP2 B/16 256": _SIGLIP2 + "b16_256.npz",
    "SigLIP2 B/16 384": _SIGLIP2 + "b16_384.npz",
    "SigLIP2 B/16 512": _SIGLIP2 + "b16_512.npz",
    "SigLIP2 B/32 256": _SIGLIP2 + "b32_256.npz",
    "SigLIP2 L/16 256": _SIGLIP2 + "l16_256.npz",
    "SigLIP2 L/16 384": _SIGLIP2 + "l16_384.npz",
    "SigLIP2 L/16 512": _SIGLIP2 + "l16_512.npz",
    "SigLIP2 So400m/14 224": _SIGLIP2 + "so400m14_224.npz",
    "SigLIP2 So400m/14 384": _SIGLIP2 + "so400m14_384.npz",
    "SigLIP2 g-opt/16 256": _SIGLIP2 + "g-opt16_256.npz",
    "SigLIP2 g-opt/16 384": _SIGLIP2 + "g-opt16_384.npz",
}
# fmt: on


def local_path(source: str) -> str:
    """Return the path of a file or folder, fetched if it is a name or an address.

    Args:
        source: A path; a name in `PUBLISHED`; or an address: http(s) and gs:// go
            through `keras.utils.get_file`, all other schemes through `tf.io.gfile`.
            The authors' ":img" behind a file's name is understood and not needed.

    Returns:
        The path. What was fetched is kept in Keras' cache folder. The address of a
        run's folder (no file's ending) is returned as it is: it is read in place.

    Raises:
        FileNotFoundError: Neither a file, a folder, a known name nor an address.
        ValueError: An http(s) address whose path ends as no file of weights does.
        OSError: The address can't be fetched.
    """
    source = os.path.expanduser(os.fspath(source))
    if os.path.exists(source):
        return source
    address = re.sub(r"(\.npz):[\w/]+$", r"\1", PUBLISHED.get(source, source))
    if os.path.exists(address):
        return address
    scheme, separator, rest = address.partition("://")
    if not separator:
        near = difflib.get_close_matches(source, PUBLISHED, n=1, cutoff=0.0)[0]
        raise FileNotFoundError(
            f"No weights at {source!r}: neither a file, a folder nor an address, and "
            f"no published weights are called that (the nearest name is {near!r})."
        )
    parts = urlsplit(address)
    if scheme in ("http", "https") and not parts.path.endswith(ENDINGS):
        raise ValueError(
            f"The path of {address!r} must end in {', '.join(ENDINGS)}: nothing else "
            "is read over http. Fetch a run's folder by other means and give its path."
        )
    if is_folder(address):
        return address
    folder, name = os.path.split(parts.netloc + parts.path)
    folder = f"{folder}/{parts.query}" if parts.query else folder
    folder = re.sub(r"[^\w./-]", "_", folder).strip("/")
    path = os.path.join(_cache(), "vit_scaling", folder, name)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Under another name until it is whole: who is killed half-way leaves no file.
        partial = f"{path}.{os.getpid()}.partial"
        if scheme in ("http", "https", "gs"):
            host = "storage.googleapis.com/" if scheme == "gs" else ""
            protocol = "https" if scheme == "gs" else scheme
            _download(f"{protocol}://{host}{rest}", partial)
        else:
            _copy(address, partial)
        os.replace(partial, path)
    return path


def is_folder(path: str) -> bool:
    """Return whether this is a folder, here or (no file's ending) at an address."""
    return os.path.isdir(path) or ("://" in path and not ends_in(path, ENDINGS))


def ends_in(source: str, endings: str | tuple[str, ...]) -> bool:
    """Return whether a path, or an address without its query, ends so."""
    return (urlsplit(source).path if "://" in source else source).endswith(endings)


def _cache() -> str:
    """Return Keras' cache folder, by Keras' own rule."""
    home = os.path.expanduser(os.environ.get("KERAS_HOME", os.path.join("~", ".keras")))
    nearest = home if os.path.isdir(home) else os.path.dirname(os.path.abspath(home))
    if os.access(nearest, os.W_OK):
        return home
    return os.path.join(tempfile.gettempdir(), ".keras")


def _download(address: str, partial: str) -> None:
    folder, name = os.path.split(partial)
    try:
        keras.utils.get_file(
            name, address, cache_dir=folder, cache_subdir="", force_download=True
        )
    except Exception as error:  # Keras raises a bare Exception.
        raise OSError(_unreachable(address, error)) from error


def _copy(address: str, partial: str) -> None:
    import tensorflow as tf  # Only here: gfile knows schemes that Python does not.

    try:
        tf.io.gfile.copy(address, partial, overwrite=True)
    except tf.errors.OpError as error:
        raise OSError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    return (
        f"Weights can't be fetched from {address!r}: {error}. Check the address and "
        "the network, or fetch the file by other means and give its path."
    )
