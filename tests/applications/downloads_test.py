"""Downloads with the real clients, from servers on this machine that fail."""
# SPDX-License-Identifier: Apache-2.0

import base64
import functools
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.applications import hub_server
from tests.applications.cases import NAMED
from vit_scaling.applications import downloads
from vit_scaling.applications.sources import find_source

WEIGHTS = bytes(range(256)) * 100_000  # More than the client writes at a time.
RESOLVE = (
    "import sys; from vit_scaling.applications.addresses import local_path; "
    "print(local_path(sys.argv[1]))"
)


@pytest.fixture
def hub():
    files = {
        "config.json": b"{}",
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"a pickle",
        "tokenizer.json": b"{}",
    }
    with hub_server.serve(hub_server.Hub("timm/tiny", files)) as hub:
        yield hub


@pytest.fixture
def resolve(hub, tmp_path):
    """Return a function that resolves an address in a process with an empty cache."""

    def run(address="hf://timm/tiny", **environment):
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        return subprocess.run(
            [sys.executable, "-c", RESOLVE, address],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def last_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def cached_files(tmp_path) -> list[str]:
    """Return the names of all cached files of repositories but lists and locks."""
    found = (tmp_path / "hf").rglob("models--*/[bs]*/**/*")
    return sorted(path.name for path in found if path.is_file())


def test_repository_is_downloaded_once_and_read_offline(resolve, hub, tmp_path):
    first = resolve()
    folder = first.stdout.strip()
    assert folder.startswith(str(tmp_path)) and folder.endswith(hub_server.COMMIT)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        assert file.read() == WEIGHTS
    assert "100%" in first.stderr  # Progress.
    hub.requests.clear()
    pinned = resolve(f"hf://timm/tiny@{hub_server.COMMIT}")
    assert pinned.stdout.strip() == folder
    assert not [path for _, path, _ in hub.requests if "resolve" in path]
    hub.requests.clear()
    assert resolve(HF_HUB_OFFLINE="1").stdout.strip() == folder
    assert not hub.requests


def test_interrupted_transfer_continues_where_it_broke_off(resolve, hub):
    hub.cut_after, hub.cuts = 11_000_000, 1
    folder = resolve().stdout.strip()
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        assert file.read() == WEIGHTS
    ranges = [wanted for method, _, wanted in hub.requests if method == "GET"]
    assert "bytes=10485760-" in ranges


@pytest.mark.slow  # The client tries six times.
def test_transfer_that_never_ends_leaves_nothing_half_written(resolve, hub, tmp_path):
    hub.cut_after = 1000
    assert "can't be downloaded" in last_line(resolve())
    assert not [name for name in cached_files(tmp_path) if "safetensors" in name]
    sizes = {path.stat().st_size for path in (tmp_path / "hf").rglob("blobs/*")}
    assert sizes <= {len(b"{}")}
    hub.cuts = 0
    assert resolve().returncode == 0


def test_wrong_hash_is_an_error_and_the_file_is_removed(resolve, hub, tmp_path):
    hub.corrupt = True
    message = last_line(resolve())
    assert "model.safetensors of 'hf://timm/tiny' did not have the hash" in message
    assert "model.safetensors" not in cached_files(tmp_path)
    hub.corrupt = False
    assert resolve().returncode == 0


def test_file_damaged_in_the_cache_is_found_without_a_network(resolve, hub):
    folder = resolve().stdout.strip()
    path = os.path.realpath(os.path.join(folder, "config.json"))
    with open(path, "wb") as file:
        file.write(b"[]")
    message = last_line(resolve(HF_HUB_OFFLINE="1"))
    assert "config.json of 'hf://timm/tiny' did not have the hash" in message
    assert not os.path.exists(path)


def test_gated_repository_says_how_to_get_access(resolve, hub, tmp_path):
    hub.gated = True
    message = last_line(resolve())
    assert message.startswith("PermissionError: 'hf://timm/tiny' is a gated")
    assert f"{hub.url}/timm/tiny" in message and "HF_TOKEN" in message
    assert not cached_files(tmp_path)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://timm/tiny@v9", "has no such revision"),
        ("hf://timm/vit_base_patch16_224.mea", "Did you mean 'hf://timm/vit_base_pa"),
        ("hf://tiny", "Give hf://OWNER/NAME or hf://OWNER/NAME@REVISION"),
    ],
)
def test_address_without_a_repository_is_named(resolve, address, message):
    line = last_line(resolve(address))
    assert repr(address) in line and message in line


def test_repository_without_safetensors_is_named(resolve, hub):
    del hub.files["model.safetensors"]
    assert "'hf://timm/tiny' has no model.safetensors" in last_line(resolve())


def test_without_a_network_the_error_says_what_to_download(resolve):
    for settings in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        message = last_line(resolve(**settings))
        assert "'hf://timm/tiny' can't be downloaded" in message
        assert "model.safetensors from" in message and "give its path" in message


def test_without_the_client_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "vit_scaling\[hub\]"'):
        downloads.fetch_repository("hf://timm/tiny")


class _Storage(http.server.SimpleHTTPRequestHandler):
    """Files with the MD5 header of Google Cloud Storage, by default a wrong one."""

    md5 = hashlib.md5(b"other content").digest()

    def log_message(self, *args):
        pass

    def end_headers(self):
        stated = base64.b64encode(self.md5).decode()
        self.send_header("x-goog-hash", f"crc32c=n03x6A==,md5={stated}")
        super().end_headers()


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    folder = os.path.dirname(NAMED["augreg"].path)
    handler = functools.partial(_Storage, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/model.npz"
        running.shutdown()
        thread.join()


def test_md5_stated_by_the_storage_is_checked(storage, tmp_path, monkeypatch):
    with pytest.raises(OSError, match="hash does not match"):
        downloads.fetch_file(storage)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with open(NAMED["augreg"].path, "rb") as file:
        monkeypatch.setattr(_Storage, "md5", hashlib.md5(file.read()).digest())
    assert os.path.isfile(downloads.fetch_file(storage))


def test_missing_file_and_unreachable_server_are_named(storage, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz' does not exist"):
        downloads.fetch_file(storage.replace("model", "nothing"))
    with pytest.raises(OSError, match=rf"can't be downloaded.*save it as '{tmp_path}"):
        downloads.fetch_file("http://127.0.0.1:9/model.npz")


@pytest.mark.slow  # A process that imports TensorFlow.
@pytest.mark.parametrize("name", ["hf_vit", "hf_siglip_vision", "timm_map"])
def test_downloaded_model_gives_its_projects_outputs(name, tmp_path):
    case = NAMED[name]
    source = pathlib.Path(case.path).parent
    names = ("config.json", "model.safetensors")
    files = {n: (source / n).read_bytes() for n in names if (source / n).exists()}
    images, expected = case.expected()
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy, vit_scaling; options = eval(sys.argv[1]); "
        "model = vit_scaling.load('hf://timm/tiny@main', **options); "
        "numpy.save('output.npy', model(numpy.load('images.npy')))"
    )
    with hub_server.serve(hub_server.Hub("timm/tiny", files)) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
        paths = {"PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(
            [sys.executable, "-c", code, repr(case.options)],
            env={**os.environ, **environment, **paths},
            cwd=tmp_path,
            check=True,
        )
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), expected, atol=1e-5)


def test_shard_that_the_repository_lacks_is_named(resolve, hub):
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2"}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.files["model-1-of-2.safetensors"] = hub.files.pop("model.safetensors")
    folder = resolve().stdout.strip()
    with pytest.raises(FileNotFoundError, match="do not exist: model-2-of-2"):
        find_source(folder)
