"""vit-scaling serve, as a process, asked by vit-scaling predict and by plain REST."""
# SPDX-License-Identifier: Apache-2.0

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.export import runs
from vit_scaling.commands import predict, serve
from vit_scaling.export import prediction, saved_model
from vit_scaling.run_record import RunRecord

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "1"
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    saved_model.export_model(runs.small_model(), folder, record)
    return folder


@pytest.fixture(scope="module")
def addresses(export):
    """What the running command prints; it must end by SIGTERM with code 0."""
    ports = ["--port=0", "--rest_api_port=0"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/serve.py"), str(export), *ports, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    printed = ""
    while not printed.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, "The command ended."
        printed += line
    yield json.loads(printed)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    process.stdout.close()


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_predict_gets_the_exports_predictions(
    export, addresses, tmp_path, capsys, kind
):
    files = [runs.image_file(50, 60, seed=number) for number in range(3)]
    for number, content in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(content)
    flags = [f"--server={addresses[kind]}", f"--images={tmp_path}", "--json"]
    assert predict.main(flags) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    names, values = prediction.make_local_predictor(export)(files)
    assert [row["classes"] for row in found] == names
    for row, expected in zip(found, values, strict=True):
        assert row["probabilities"] == pytest.approx(expected, rel=1e-5)


def test_default_signature_returns_names_with_probabilities_over_rest(addresses):
    assert addresses["models"] == ["vit"]
    content = base64.b64encode(runs.image_file(50, 60)).decode()
    body = json.dumps({"instances": [{"b64": content}]}).encode()
    url = f"{addresses['rest']}/v1/models/vit:predict"
    with urllib.request.urlopen(url, body) as response:
        [row] = json.load(response)["predictions"]
    assert sorted(row["top_classes"]) == sorted(runs.CLASS_NAMES)
    assert row["top_probabilities"] == sorted(row["top_probabilities"], reverse=True)
    assert sum(row["top_probabilities"]) == pytest.approx(1.0, abs=1e-5)


def test_a_folder_without_an_export_ends_the_command(tmp_path, capsys):
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert serve.main([str(tmp_path), "--port=0", "--rest_api_port=0"]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "vit-scaling export" in capsys.readouterr().err
