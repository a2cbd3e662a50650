"""Download files and Hugging Face repositories into the caches of their clients."""
# SPDX-License-Identifier: Apache-2.0

import base64
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from vit_scaling import io_files

HUB = "hf://"
# All that a conversion reads; a repository's other formats are not downloaded.
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)


def fetch_file(address: str) -> str:
    """Return the path of a file in Keras' cache folder, downloaded on the first call.

    http(s):// and gs:// addresses are downloaded by `keras.utils.get_file`, other
    schemes by `tf.io.gfile`. The MD5 hash is checked if the server states it, as Google
    Cloud Storage does. An incomplete download never gets the file's name.

    Raises:
        FileNotFoundError: The server has no such file.
        OSError: The file can't be downloaded, or its hash differs.
    """
    parts = urlsplit(address)
    folder, name = os.path.split(parts.netloc + parts.path)
    folder = f"{folder}/{parts.query}" if parts.query else folder
    folder = re.sub(r"[^\w./-]", "_", folder).strip("/")
    path = os.path.join(_keras_home(), "vit_scaling", folder, name)
    if os.path.exists(path):
        return path
    if parts.scheme == "gs":
        address = f"https://storage.googleapis.com/{address.removeprefix('gs://')}"
    try:
        md5 = _stated_md5(address)
        # A process that is killed half-way must not leave a partial file at `path`.
        with io_files.atomic_file(path) as temporary:
            _download(address, os.fspath(temporary), md5)
    except HTTPError as error:
        raise FileNotFoundError(f"{address!r} does not exist ({error}).") from error
    except Exception as error:  # Keras raises a bare Exception.
        raise OSError(
            f"{address!r} can't be downloaded: {_reason(error)}. Check the address and "
            f"the network, or download the file elsewhere and save it as {path!r}."
        ) from error
    return path


def fetch_repository(address: str) -> str:
    """Return the folder of a Hugging Face repository's weights and configuration.

    Downloads are kept in the cache of `huggingface_hub`, which follows HF_HOME,
    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, and continues a transfer that breaks off.
    Each call checks the files against the hashes under which the cache stores them.

    Args:
        address: "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION".

    Raises:
        ValueError: The address has another form.
        ImportError: `huggingface_hub` is not installed.
        FileNotFoundError: The repository, the revision or its weights do not exist.
        OSError: The repository is gated or private, can't be reached, or a file is
            damaged.
    """
    match = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if match is None:
        raise ValueError(
            f"{address!r} is not a Hugging Face address. Give hf://OWNER/NAME or "
            "hf://OWNER/NAME@REVISION, such as hf://timm/vit_base_patch16_224.mae."
        )
    repository, revision = match.groups()
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{address!r} needs huggingface_hub, which is not installed. Run `pip "
            'install "vit_scaling[hub]"`, or download the repository and give its '
            "folder."
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(HUB_FILES)
        )
    except Exception as error:  # The client's, httpx's and the system's errors.
        raise _hub_error(error, address, repository) from error
    _check_hashes(folder, address)
    _check_has_weights(folder, address)
    return folder


def _hub_error(error: Exception, address: str, repository: str) -> OSError:
    """Return an error that says what to do about an error of `huggingface_hub`."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"{address!r} is a gated repository. Accept its terms at {page}, then set "
            "HF_TOKEN or run `hf auth login`."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{address!r} has no such revision. See the branches, tags and commits at "
            f"{page}/commits/main."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{address!r} does not exist or is private. For a private repository set "
            "HF_TOKEN or run `hf auth login`."
        )
    return OSError(
        f"{address!r} can't be downloaded: {_reason(error)}. Check the network and "
        f"HF_HUB_OFFLINE, or download {', '.join(HUB_FILES[:3])} from {page} into a "
        "folder and give its path."
    )


def _check_hashes(folder: str, address: str) -> None:
    """Remove damaged files of a cached repository, and raise OSError.

    The cache links each file to one that is named by its hash: SHA-256 for large files,
    Git's hash for small ones. Without links (Windows) nothing is checked.
    """
    from huggingface_hub.utils import sha

    damaged = []
    for link in filter(Path.is_symlink, Path(folder).iterdir()):
        file = link.resolve()
        with file.open("rb") as content:
            if len(file.name) == 64:
                intact = sha.sha_fileobj(content).hex() == file.name
            else:
                intact = (
                    len(file.name) != 40 or sha.git_hash(content.read()) == file.name
                )
        if not intact:
            damaged.append(link.name)
            link.unlink()
            file.unlink()
    if damaged:
        raise OSError(
            f"{', '.join(damaged)} of {address!r} did not have the hash that its "
            "repository states, and has been removed from the cache. Run again to "
            "download it once more."
        )


def _check_has_weights(folder: str, address: str) -> None:
    names = sorted(os.listdir(folder))
    if not any(name.endswith((".safetensors", ".index.json")) for name in names):
        raise FileNotFoundError(
            f"{address!r} has no model.safetensors, the only form of weights that is "
            f"read from a repository; found {', '.join(names) or 'nothing'}. Choose a "
            "repository or revision with safetensors."
        )


def _download(address: str, path: str, md5: str | None) -> None:
    """Copy the file at an address to a local path."""
    if not address.startswith(("http://", "https://")):
        # Only here: gfile supports schemes that Python does not.
        import tensorflow as tf

        tf.io.gfile.copy(address, path, overwrite=True)
        return
    import keras  # Not at import: a wrong source is rejected at once.

    folder, name = os.path.split(path)
    keras.utils.get_file(
        name,
        address,
        cache_dir=folder,
        cache_subdir="",
        force_download=True,
        file_hash=md5,
        hash_algorithm="md5",
    )


def _stated_md5(address: str) -> str | None:
    """Return the MD5 hash that Google Cloud Storage states for a file, if it does.

    Raises:
        HTTPError: The file does not exist.
    """
    if not address.startswith(("http://", "https://")):
        return None
    try:
        with urlopen(Request(address, method="HEAD")) as response:
            stated = response.headers.get_all("x-goog-hash") or ()
    except HTTPError as error:
        if error.code == 404:
            raise
        return None  # Some servers only allow GET.
    match = re.search(r"md5=([\w+/]+=*)", ",".join(stated))
    return None if match is None else base64.b64decode(match[1]).hex()


def _reason(error: Any) -> str:
    """Return the first line of an error's text, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _keras_home() -> str:
    """Return Keras' cache folder, by Keras' rule."""
    home = os.path.expanduser(os.environ.get("KERAS_HOME", os.path.join("~", ".keras")))
    nearest = home if os.path.isdir(home) else os.path.dirname(os.path.abspath(home))
    if os.access(nearest, os.W_OK):
        return home
    return os.path.join(tempfile.gettempdir(), ".keras")
