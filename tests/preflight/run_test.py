"""A preflight: the report on a batch, and on the largest that fits."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.preflight.programs import HLO, LINEAR, NOT_KNOWN, recorded
from vit_scaling.preflight import program
from vit_scaling.preflight.collectives import find_collectives
from vit_scaling.preflight.run import Preflight, find_largest_batch
from vit_scaling.preflight.targets import find_target

V3 = (find_target("v3:2x2"), 8)
GIB = 2**30
LIMIT = 100.0  # Of the memory in the tests of the search alone.


class Linear:
    """A step whose program holds its batch."""

    parameters = 6

    def lower(self, per_core_batch, replicas, *, for_tpu=True):
        assert replicas == 8
        return program.make_pure_stablehlo(LINEAR.replace("4x3", f"{per_core_batch}x3"))


class Growing:
    """A compiler that needs a GiB per ten images, as libtpu would word it."""

    def compile(self, text, topology):
        batch = int(text.split("%arg0: tensor<")[-1].split("x")[0])
        used = batch / 10
        if used > 15.48:
            error = f"RESOURCE_EXHAUSTED: Used {used:.2f}G of 15.48G hbm"
            return {"error": error, "kind": "compile"}, False
        exchange = find_collectives(HLO)
        sizes = {"temp_bytes": used * GIB, "collectives": exchange}
        return {**recorded("mu"), **sizes}, False


def test_a_report_has_the_settings_of_its_batch(tmp_path):
    file = tmp_path / "program.mlir"
    preflight = Preflight(Linear(), Growing(), *V3, program_path=file)
    found = preflight.check_batch(16)
    assert found["fits"] is True
    assert found["per_core_batch"] == 16
    assert found["replicas"] == 8
    assert found["collectives"]["count"] == 2
    assert "for all replicas" in found["note"]
    assert found["compiler"]["libtpu"] == "0.0.42.1"
    assert found["program"] == program.compute_fingerprint(file.read_text())


def test_the_largest_batch_is_found():
    lines = []
    found = Preflight(Linear(), Growing(), *V3, log=lines.append).find_largest_batch()
    assert found["largest_batch"] == found["per_core_batch"] == 152
    assert found["tried"]["160"] is False
    assert "152 images per core fit: 15.20 GiB." in lines


class MicroBatched(Linear):
    """A step with a number of micro-batches."""

    def __init__(self, micro_batches):
        self.micro_batches, self.lowered = micro_batches, []

    def lower(self, per_core_batch, replicas, *, for_tpu=True):
        if per_core_batch % self.micro_batches:
            raise program.IndivisibleBatchError("not divisible", self.micro_batches)
        self.lowered.append(per_core_batch)
        return super().lower(per_core_batch, replicas, for_tpu=for_tpu)


@pytest.mark.parametrize(("micro_batches", "largest"), [(2, 152), (16, 144), (6, 144)])
def test_the_largest_batch_is_divisible_by_the_micro_batches(micro_batches, largest):
    step = MicroBatched(micro_batches)
    found = Preflight(step, Growing(), *V3).find_largest_batch()
    assert found["largest_batch"] == found["per_core_batch"] == largest
    assert len(step.lowered) == len(set(step.lowered))  # No batch is lowered twice.


def test_if_nothing_fits_indivisible_batches_are_skipped():
    class Full:
        def compile(self, text, topology):
            error = "RESOURCE_EXHAUSTED: Used 16.00G of 15.48G hbm"
            return {"error": error, "kind": "compile"}, False

    found = Preflight(MicroBatched(4), Full(), *V3).find_largest_batch()
    assert found["largest_batch"] == 0 and found["tried"] == {"4": False, "8": False}


@pytest.mark.parametrize(("beyond", "largest"), [(0, 0), (20, 16)])
def test_the_search_ends_if_a_step_cannot_be_compiled(beyond, largest):
    class Limited(Growing):
        def compile(self, text, topology):
            if int(text.split("%arg0: tensor<")[-1].split("x")[0]) > beyond:
                return {"error": NOT_KNOWN, "kind": "compile"}, False
            return super().compile(text, topology)

    found = Preflight(Linear(), Limited(), *V3).find_largest_batch()
    assert found["fits"] is None and found["error"] == NOT_KNOWN
    assert found["largest_batch"] == largest
    assert found["per_core_batch"] > beyond
    assert found["tried"][str(found["per_core_batch"])] is None


def test_operations_that_xla_lacks_are_reported():
    class Lacking(Linear):
        def lower(self, per_core_batch, replicas, *, for_tpu=True):
            raise program.UnsupportedError(["PyFunc"])

    found = Preflight(Lacking(), Growing(), *V3).check_batch(8)
    assert found["fits"] is None
    assert found["unsupported_operations"] == ["PyFunc"]


def find_batch(memory, **options):
    """Return the batch found and the batches probed."""
    probed = []

    def probe(batch):
        assert batch not in probed, "a compilation is not repeated"
        probed.append(batch)
        used = memory(batch)
        return used <= LIMIT, used, LIMIT

    return find_largest_batch(probe, **options), probed


@pytest.mark.parametrize("per_image", [0.1, 0.37, 0.9, 2.0, 5.0])
def test_linear_memory_takes_few_probes(per_image):
    found, probed = find_batch(lambda batch: 12.0 + per_image * batch)
    assert found == int((LIMIT - 12.0) / per_image) // 8 * 8
    assert len(probed) <= 6


def test_memory_that_is_not_linear_is_searched_too():
    # Short of memory, a compiler recomputes values instead of storing them.
    def memory(batch):
        return 10.0 + batch if batch < 50 else 60.0 + 0.4 * (batch - 50)

    found, probed = find_batch(memory)
    assert found == 144
    assert len(probed) <= 9


def test_steps_of_one_are_exact():
    found, _ = find_batch(lambda batch: 1.7 * batch, multiple=1)
    assert found == 58


def test_fewer_than_a_multiple_are_found():
    assert find_batch(lambda batch: 30.0 * batch)[0] == 2
    assert find_batch(lambda batch: 90.0 * batch)[0] == 1
    assert find_batch(lambda batch: 900.0 * batch)[0] == 0


def test_sizes_may_be_unknown():
    def probe(batch):
        return batch <= 72, None, LIMIT

    assert find_largest_batch(probe) == 72


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 12}, "`multiple` must be a power of two; received 12"),
        ({"multiple": 0}, "received 0"),
    ],
)
def test_bad_steps_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        find_batch(lambda batch: 1.0, **options)
