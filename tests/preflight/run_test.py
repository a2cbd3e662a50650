"""A preflight put together: what is said of a batch, and of the largest."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.preflight.programs import LINEAR, NOT_KNOWN, recorded
from vit_scaling.preflight import program
from vit_scaling.preflight.run import Preflight

GIB = 2**30


class Linear:
    """A step whose program holds its batch."""

    parameters = 6
    gradient_bytes = 24

    def text(self, per_core_batch):
        return program.mended(LINEAR.replace("4x3", f"{per_core_batch}x3"))


class Growing:
    """A compiler that needs a GiB per ten images, as libtpu would word it."""

    def answer(self, text, topology):
        batch = int(text.split("%arg0: tensor<")[-1].split("x")[0])
        used = batch / 10
        if used > 15.48:
            error = f"RESOURCE_EXHAUSTED: Used {used:.2f}G of 15.48G hbm"
            return {"error": error, "kind": "compile"}, False
        return {**recorded("mu"), "temp_bytes": used * GIB}, False


def test_a_batch_is_answered_with_what_it_is_of(tmp_path):
    file = tmp_path / "program.mlir"
    preflight = Preflight(Linear(), Growing(), "v3:2x2", keep_program=file)
    found = preflight.at(16)
    assert found["fits"] is True
    assert found["per_core_batch"] == 16
    assert found["all_reduce_bytes"] == 24
    assert "one replica's, without the all-reduce" in found["note"]
    assert found["compiler"]["libtpu"] == "0.0.42.1"
    assert found["program"] == program.fingerprint(file.read_text())


def test_the_largest_batch_is_found():
    told = []
    found = Preflight(Linear(), Growing(), "v3:2x2", say=told.append).largest()
    assert found["largest_batch"] == found["per_core_batch"] == 152
    assert found["tried"]["160"] is False
    assert "152 images per core fit: 15.20 GiB." in told


class InPieces(Linear):
    """A step of so many micro-batches."""

    def __init__(self, pieces):
        self.pieces, self.lowered = pieces, []

    def text(self, per_core_batch):
        if per_core_batch % self.pieces:
            raise program.IndivisibleBatchError("not to be shared", self.pieces)
        self.lowered.append(per_core_batch)
        return super().text(per_core_batch)


@pytest.mark.parametrize(("pieces", "largest"), [(2, 152), (16, 144), (6, 144)])
def test_the_largest_batch_is_one_that_the_micro_batches_can_share(pieces, largest):
    step = InPieces(pieces)
    found = Preflight(step, Growing(), "v3:2x2").largest()
    assert found["largest_batch"] == found["per_core_batch"] == largest
    assert len(step.lowered) == len(set(step.lowered))  # None is lowered twice.


def test_where_nothing_fits_batches_that_cannot_be_shared_are_passed_over():
    class Full:
        def answer(self, text, topology):
            error = "RESOURCE_EXHAUSTED: Used 16.00G of 15.48G hbm"
            return {"error": error, "kind": "compile"}, False

    found = Preflight(InPieces(4), Full(), "v3:2x2").largest()
    assert found["largest_batch"] == 0 and found["tried"] == {"4": False, "8": False}


@pytest.mark.parametrize(("beyond", "largest"), [(0, 0), (20, 16)])
def test_the_search_ends_where_a_step_cannot_be_compiled(beyond, largest):
    class Refusing(Growing):
        def answer(self, text, topology):
            if int(text.split("%arg0: tensor<")[-1].split("x")[0]) > beyond:
                return {"error": NOT_KNOWN, "kind": "compile"}, False
            return super().answer(text, topology)

    found = Preflight(Linear(), Refusing(), "v3:2x2").largest()
    assert found["fits"] is None and found["error"] == NOT_KNOWN
    assert found["largest_batch"] == largest
    assert found["per_core_batch"] > beyond
    assert found["tried"][str(found["per_core_batch"])] is None


def test_operations_that_xla_lacks_are_an_answer():
    class Lacking(Linear):
        def text(self, per_core_batch):
            raise program.UnsupportedError(["PyFunc"])

    found = Preflight(Lacking(), Growing(), "v3:2x2").at(8)
    assert found["fits"] is None
    assert found["unsupported_operations"] == ["PyFunc"]
