"""One command for all benchmarks: the first argument names one."""
# SPDX-License-Identifier: Apache-2.0

import importlib

import pytest

from vit_scaling.commands import benchmark


def test_without_a_known_name_the_usage_is_printed(capsys):
    assert benchmark.main([]) == 2
    assert "usage: benchmark.py BENCHMARK" in capsys.readouterr().err
    assert benchmark.main(["--help"]) == 0
    assert "usage: benchmark.py BENCHMARK" in capsys.readouterr().out


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_every_benchmark_tells_its_flags(name, capsys):
    module = importlib.import_module(f"vit_scaling.commands.benchmarks.{name}")
    assert callable(module.run)
    with pytest.raises(SystemExit) as ended:
        benchmark.main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"benchmark.py {name}" in text or f" {name} " in text
    assert "--json" in text
    assert (module.__doc__ or "").split(",")[0].split("\n")[0][:30] in text
