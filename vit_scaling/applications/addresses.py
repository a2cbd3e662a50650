"""Find weights by path, published name or address, and download them."""
# SPDX-License-Identifier: Apache-2.0

import os
import re
import tempfile
from urllib.parse import urlsplit

from vit_scaling import io_files
from vit_scaling.naming import did_you_mean

SUFFIXES = (".npz", ".safetensors", ".keras", ".h5")
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


def resolve(source: str) -> str:
    """Return the path or address of a source, downloading nothing.

    Raises:
        FileNotFoundError: `source` is not a file, folder, published name or address.
    """
    source = os.path.expanduser(os.fspath(source))
    if os.path.exists(source):
        return source
    address = re.sub(r"(\.npz):[\w/]+$", r"\1", PUBLISHED.get(source, source))
    if not os.path.exists(address) and "://" not in address:
        raise FileNotFoundError(
            f"No weights found at {source!r}. It is not a file, folder, address or "
            f"name of published weights.{did_you_mean(source, PUBLISHED)}"
        )
    return address


def local_path(source: str) -> str:
    """Return the path of a file or folder, downloading what is not local.

    Args:
        source: A path, a name in `PUBLISHED`, or an address. http(s) and gs://
            addresses are fetched by `keras.utils.get_file`, other schemes by
            `tf.io.gfile`. The authors' ":img" after a file's name is ignored.

    Returns:
        The path; downloads are kept in Keras' cache folder. The address of a run folder
        (without a file's suffix) is returned unchanged, since it is read in place.

    Raises:
        FileNotFoundError: `source` is not a file, folder, published name or address.
        ValueError: An http(s) address does not end in a suffix of weights files.
        OSError: The address can't be fetched.
    """
    address = resolve(source)
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    parts = urlsplit(address)
    if scheme in ("http", "https") and not parts.path.endswith(SUFFIXES):
        raise ValueError(
            f"The path of {address!r} must end in {', '.join(SUFFIXES)}. Download "
            "other sources, such as a run folder, and give their path."
        )
    if is_folder(address):
        return address
    folder, name = os.path.split(parts.netloc + parts.path)
    folder = f"{folder}/{parts.query}" if parts.query else folder
    folder = re.sub(r"[^\w./-]", "_", folder).strip("/")
    path = os.path.join(_cache_folder(), "vit_scaling", folder, name)
    if scheme == "gs":
        address = f"https://storage.googleapis.com/{rest}"
    if not os.path.exists(path):
        # A process that is killed half-way must not leave a partial file at `path`.
        with io_files.atomic_file(path) as temporary:
            _fetch(address, os.fspath(temporary))
    return path


def is_folder(path: str) -> bool:
    """Whether this is a local folder, or an address without a file's suffix."""
    return os.path.isdir(path) or ("://" in path and not has_suffix(path, SUFFIXES))


def has_suffix(source: str, suffixes: str | tuple[str, ...]) -> bool:
    """Whether a path, or an address without its query, has one of the suffixes."""
    return (urlsplit(source).path if "://" in source else source).endswith(suffixes)


def _cache_folder() -> str:
    """Return Keras' cache folder, by Keras' rule."""
    home = os.path.expanduser(os.environ.get("KERAS_HOME", os.path.join("~", ".keras")))
    nearest = home if os.path.isdir(home) else os.path.dirname(os.path.abspath(home))
    if os.access(nearest, os.W_OK):
        return home
    return os.path.join(tempfile.gettempdir(), ".keras")


def _fetch(address: str, path: str) -> None:
    """Copy the file at an address to a local path."""
    try:
        if address.startswith(("http://", "https://")):
            folder, name = os.path.split(path)
            import keras  # Not at import: a wrong source is rejected at once.

            keras.utils.get_file(
                name, address, cache_dir=folder, cache_subdir="", force_download=True
            )
        else:
            # Only here: gfile supports schemes that Python does not.
            import tensorflow as tf

            tf.io.gfile.copy(address, path, overwrite=True)
    except Exception as error:  # Keras raises a bare Exception.
        raise OSError(
            f"Weights can't be fetched from {address!r}: {error}. Check the address "
            "and the network, or download the file yourself and give its path."
        ) from error
