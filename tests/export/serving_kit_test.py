"""Exports go into numbered versions in one folder."""
# SPDX-License-Identifier: Apache-2.0

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tests.export import runs
from vit_scaling.export import serving_kit


def test_next_export_is_the_next_version_and_other_models_stay(tmp_path):
    runs.write_run(tmp_path / "run", runs.small_model())
    for name, version in (("vit", None), ("vit", None), ("other", 7)):
        serving_kit.write_kit(
            tmp_path / "run", tmp_path / "kit", name=name, version=version
        )
    assert serving_kit.list_versions(tmp_path / "kit/vit") == [1, 2]
    assert serving_kit.list_versions(tmp_path / "kit/other") == [7]
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((tmp_path / "kit/models.config").read_text(), config)
    assert [one.name for one in config.model_config_list.config] == ["other", "vit"]
    with pytest.raises(FileExistsError, match="is not overwritten"):
        serving_kit.write_kit(tmp_path / "run", tmp_path / "kit", version=2)


def test_xla_flag_is_given_to_the_server_where_any_model_needs_it(tmp_path):
    runs.write_run(tmp_path / "run", runs.small_model())
    kit = tmp_path / "kit"
    said = []
    for name, jit_compile in (("plain", False), ("fast", True), ("plain", False)):
        serving_kit.write_kit(tmp_path / "run", kit, name=name, jit_compile=jit_compile)
        command = yaml.safe_load((kit / "compose.yaml").read_text())["services"]
        flag = "--xla_cpu_compilation_enabled=true"
        said.append(flag in command["serving"]["command"])
    assert said == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name": "a/b"}, "`name` must be"), ({"version": 0}, "`version` must be")],
)
def test_names_and_versions_without_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        serving_kit.write_kit(tmp_path, tmp_path, **options)
