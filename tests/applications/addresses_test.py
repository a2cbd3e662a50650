"""Names and addresses become files; what can't be had is said in one sentence."""
# SPDX-License-Identifier: Apache-2.0

import functools
import http.server
import os
import threading

import keras
import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications import addresses, downloads
from vit_scaling.applications.weights import read_weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    home = tmp_path / "keras_home"
    home.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(home))
    return home


@pytest.fixture
def server():
    folder = os.path.dirname(NAMED["augreg"].path)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_http_address_is_fetched_and_kept(server, cache):
    weights = read_weights(f"{server}/model.npz:img")
    assert weights.arguments["head"] == "token"
    (kept,) = cache.rglob("model.npz")
    assert kept.read_bytes() == open_bytes(NAMED["augreg"].path)


def test_missing_address_is_named(server):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz' does not exist"):
        addresses.local_path(f"{server}/nothing.npz")


def test_query_of_an_address_is_no_part_of_the_files_name(server, cache):
    first = addresses.local_path(f"{server}/model.npz?download=true")
    assert first.endswith("/download_true/model.npz")
    assert read_weights(f"{server}/model.npz?download=true").layout == "big_vision"
    assert addresses.local_path(f"{server}/model.npz?id=2") != first
    assert open_bytes(first) == open_bytes(NAMED["augreg"].path)


def test_http_address_that_ends_as_no_file_of_weights_is_rejected(server):
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        addresses.local_path(f"{server}/runs/1")


def test_download_that_is_killed_half_way_is_restarted(server, cache, monkeypatch):
    def killed(name, address, *, cache_dir, **_):
        with open(os.path.join(cache_dir, name), "wb") as file:
            file.write(b"half")
        raise SystemExit  # No `Exception`: nothing is cleared away, as by a kill.

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(keras.utils, "get_file", killed)
        addresses.local_path(f"{server}/model.npz")
    assert not list(cache.rglob("model.npz"))
    path = addresses.local_path(f"{server}/model.npz")
    assert open_bytes(path) == open_bytes(NAMED["augreg"].path)
    assert not list(cache.rglob("*.partial*"))


def test_other_schemes_go_through_gfile(cache):
    path = addresses.local_path("file://" + NAMED["bv_map"].path)
    assert path.startswith(str(cache))
    assert open_bytes(path) == open_bytes(NAMED["bv_map"].path)
    with pytest.raises(OSError, match="can't be downloaded"):
        addresses.local_path("file:///no/such/file.npz")
    assert not list(cache.rglob("*.partial*"))


def test_published_names_go_to_their_buckets(monkeypatch):
    requested = []

    def fetch(name, address, *, cache_dir, **_):
        requested.append(address)
        with open(os.path.join(cache_dir, name), "wb") as file:
            file.write(b"weights")

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    monkeypatch.setattr(downloads, "_stated_md5", lambda address: None)
    addresses.local_path("SigLIP B/16 224")
    addresses.local_path("howto-i21k-B/32")
    host = "https://storage.googleapis.com/"
    assert requested[0] == host + "big_vision/siglip/webli_en_b16_224_63724782.npz"
    assert requested[1].startswith(host + "vit_models/augreg/B_32-i21k-300ep")


def test_every_name_of_the_authors_goes_to_a_file():
    for name in addresses.UNLISTED:
        assert addresses.resolve(name).startswith("gs://")
        assert addresses.resolve(name).endswith(".npz")


def test_augreg_names_are_files_of_its_bucket():
    name = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
    expected = f"gs://vit_models/augreg/{name}.npz"
    assert addresses.resolve(f"augreg:{name}") == expected
    assert addresses.resolve(f"augreg:{name}.npz") == expected


def test_imagenet_is_the_default_of_the_shape():
    assert "/B_16-i21k" in addresses.resolve("imagenet", shape="B/16")
    with pytest.raises(ValueError, match="no shape is given"):
        addresses.resolve("imagenet")
    with pytest.raises(ValueError, match=r"for 'S/14'.* there are dinov2-s14, dinov2"):
        addresses.resolve("imagenet", shape="S/14")


def test_local_files_and_folders_are_taken_as_they_are(tmp_path):
    assert addresses.local_path(str(tmp_path)) == str(tmp_path)
    path = NAMED["bv_map_tower"].path
    assert addresses.local_path(path + ":img") == path


def test_address_of_a_runs_folder_is_read_in_place():
    assert addresses.local_path("gs://bucket/runs/1") == "gs://bucket/runs/1"
    assert addresses.is_folder("gs://bucket/runs/1")
    assert not addresses.is_folder("gs://bucket/model.keras")


def test_what_is_nothing_names_the_nearest_published_weights():
    with pytest.raises(FileNotFoundError, match="Did you mean 'siglip-b16-224'"):
        addresses.local_path("SigLIP B16 224")
    with pytest.raises(FileNotFoundError, match="Did you mean 'dinov2-b14'"):
        addresses.local_path("dino2-b14")


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()
