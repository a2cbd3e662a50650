"""Clients say plainly what address, server or answer is wrong."""
# SPDX-License-Identifier: Apache-2.0

import sys

import pytest

from vit_scaling.export import clients


@pytest.mark.parametrize("address", ["grpc://127.0.0.1:9", "http://127.0.0.1:9"])
def test_no_server_is_said_so(address):
    ask = clients.make_server_predictor(address, timeout_seconds=5)
    with pytest.raises(ConnectionError, match="No model server answers at"):
        ask([b""])


def test_address_of_no_known_kind_is_refused():
    with pytest.raises(ValueError, match="must begin with grpc://"):
        clients.make_server_predictor("localhost:8500")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", ValueError),
        ("UNAVAILABLE", ConnectionError),
        ("NOT_FOUND", RuntimeError),
    ],
)
def test_complaints_become_pythons_exceptions(code, kind):
    error = clients._to_python_error(code, "the server's words", "grpc://a:1")
    assert type(error) is kind and "the server's words" in str(error)


def test_stubs_that_are_not_installed_are_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ImportError, match=r'pip install "vit_scaling\[serving\]"'):
        clients.make_server_predictor("grpc://127.0.0.1:9")
