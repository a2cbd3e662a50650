"""Flags of presets become gin files and bindings."""
# SPDX-License-Identifier: Apache-2.0

import argparse

import pytest

from vit_scaling import gin_files
from vit_scaling.commands import finetuning_flags


def read(*flags):
    parser = argparse.ArgumentParser()
    finetuning_flags.add_preset_flags(parser)
    return finetuning_flags.read_presets(parser.parse_args(flags))


def test_no_flag_is_no_preset():
    assert read() == ([], [])


@pytest.mark.parametrize("name", finetuning_flags.PRESETS)
def test_each_flag_is_a_file_that_has_its_macro(name):
    file, macro = finetuning_flags.PRESETS[name]
    value = "4" if name == "lora_rank" else "0.5"
    files, bindings = read(f"--{name}" if macro is None else f"--{name}={value}")
    assert files == [file]
    assert bindings == ([] if macro is None else [f"{macro} = {value}"])
    text = gin_files.find(file).read_text()
    assert macro is None or f"\n{macro} = " in text
