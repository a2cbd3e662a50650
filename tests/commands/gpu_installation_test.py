"""Why TensorFlow sees no GPU: each cause has its own fix."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import pytest

from vit_scaling.commands import gpu_installation
from vit_scaling.commands.gpu_installation import GPUFacts, explain_missing_gpu

SOUND = GPUFacts(
    has_card=True,
    driver="550.54.15",
    built_with_cuda=True,
    has_cuda_packages=True,
    hidden=False,
    tensorflow="2.20.0",
)


@pytest.mark.parametrize(
    ("changes", "problem", "fix"),
    [
        ({"hidden": True}, "CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES"),
        ({"driver": None}, "no loaded driver", "--gpus all"),
        ({"built_with_cuda": False}, "without CUDA", "tensorflow[and-cuda]==2.20.0"),
        ({"has_cuda_packages": False}, "libraries", "vit_scaling[cuda]"),
        ({}, "driver 550.54.15", "nvidia-smi"),
    ],
)
def test_each_cause_has_its_fix(changes, problem, fix):
    found = explain_missing_gpu(dataclasses.replace(SOUND, **changes))
    assert problem in found["problem"] and fix in found["fix"]


def test_a_machine_without_a_card_has_no_problem():
    facts = dataclasses.replace(SOUND, has_card=False, driver=None)
    assert explain_missing_gpu(facts) is None


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with one NVIDIA card and its driver, as the kernel shows them."""
    card = tmp_path / "pci" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n"
    )
    monkeypatch.setattr(gpu_installation, "PCI_DEVICES", tmp_path / "pci")
    monkeypatch.setattr(gpu_installation, "DRIVER_FILE", version)
    monkeypatch.setattr(gpu_installation, "DEVICE_FILES", tmp_path / "dev")
    return tmp_path


def test_facts_come_from_the_kernels_files(machine):
    facts = gpu_installation.gather_facts({"CUDA_VISIBLE_DEVICES": "-1"})
    assert facts.has_card and facts.driver == "550.54.15" and facts.hidden
    assert not gpu_installation.gather_facts({}).hidden
    (machine / "version").unlink()
    assert gpu_installation.gather_facts({}).driver is None
    (machine / "pci" / "0000:01:00.0" / "vendor").write_text("0x8086\n")
    assert not gpu_installation.gather_facts({}).has_card
