"""Memory, against what the TPU compiler says of the same steps."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.modeling.shapes import shape_named
from vit_scaling.scaling.planning.devices import GIB, device_named
from vit_scaling.scaling.planning.memory import memory
from vit_scaling.scaling.planning.step import Step

LIMIT = device_named("tpu_v3").memory_bytes
# fmt: off
# Shape, batch, step, arguments and temporaries in GiB of the compiled step: TPU v3
# core, MAP head, 1000 classes, modified Adafactor, bfloat16 products.
AUTHORS_JAX = {
    "Ti/16": ("Ti/16", 64, Step(), 0.081, 0.973),
    "B/16": ("B/16", 64, Step(), 0.571, 3.640),
    "G/14 without clipping": ("G/14", 8, Step(clip=False), 10.561, 3.282),
    "G/14": ("G/14", 8, Step(), 10.561, 3.744),
    "G/14 in a scan": ("G/14", 8, Step(scan=True), 10.56, 21.3),
    "g/14 in a scan, computed again": (
        "g/14", 32, Step(scan=True, rematerialize="all", clip=False), 5.842, 8.188),
}
KERAS = {
    "s/16": ("s/16", 64, Step(), 0.076, 0.839),
    "Ti/16": ("Ti/16", 64, Step(), 0.081, 0.962),
    "B/16": ("B/16", 64, Step(), 0.571, 3.551),
    "L/16": ("L/16", 32, Step(), 1.804, 4.669),
    "G/14": ("G/14", 8, Step(), 10.562, 3.702),
    "G/14 of 16, again": ("G/14", 16, Step(rematerialize="all"), 10.567, 3.849),
    "G/14 of 32, again": ("G/14", 32, Step(rematerialize="all"), 10.577, 4.039),
}
# fmt: on


@pytest.mark.parametrize("row", KERAS.values(), ids=KERAS)
def test_keras_steps_are_within_two_percent_of_the_compiler(row):
    name, batch, step, arguments, temporaries = row
    found = memory(shape_named(name), batch=batch, step=step, limit_bytes=LIMIT)
    assert found.total / GIB == pytest.approx(arguments + temporaries, rel=0.02)
    assert found.temporaries / GIB == pytest.approx(temporaries, rel=0.05)
    assert found.arguments / GIB == pytest.approx(arguments, rel=0.05)


@pytest.mark.parametrize("row", AUTHORS_JAX.values(), ids=AUTHORS_JAX)
def test_the_authors_steps_are_within_three_percent_of_the_compiler(row):
    name, batch, step, arguments, temporaries = row
    found = memory(shape_named(name), batch=batch, step=step, limit_bytes=LIMIT)
    assert found.total / GIB == pytest.approx(arguments + temporaries, rel=0.025)
    assert found.temporaries / GIB == pytest.approx(temporaries, rel=0.05)


def test_the_scan_that_did_not_fit_does_not():
    found = memory(
        shape_named("G/14"), batch=8, step=Step(scan=True), limit_bytes=LIMIT
    )
    assert found.total > LIMIT


def test_a_class_token_costs_more_than_its_share():
    """§3.2: 257 tokens are padded; attention's arrays grow by up to half or more."""
    shape = shape_named("G/14")
    map_head = memory(shape, batch=8).saved_per_image
    token = memory(shape, batch=8, step=Step(head="token")).saved_per_image
    off_tpu = [
        memory(shape, batch=8, step=Step(head=head, tpu=False)).saved_per_image
        for head in ("map", "token")
    ]
    assert 1.15 < token / map_head < 1.6
    assert off_tpu[1] / off_tpu[0] < 1.02


def test_optimizer_state_is_the_papers():
    """§3.4: 2, 1.5 and 0.5 times the weights."""
    shape = shape_named("G/14")
    for optimizer, share in (("adam", 2.0), ("adam_hp", 1.5), ("adafactor", 0.5)):
        terms = memory(shape, batch=1, step=Step(optimizer=optimizer)).terms
        state = terms["first_moment"] + terms["second_moment"]
        assert state / terms["weights"] == pytest.approx(share, abs=0.006)


def test_terms_add_up():
    for _, (name, batch, step, *_rest) in AUTHORS_JAX.items():
        found = memory(shape_named(name), batch=batch, step=step)
        assert sum(found.terms.values()) == found.total


def test_more_is_more():
    shape = shape_named("B/16")
    sizes = [memory(shape, batch=batch).total for batch in (1, 8, 64, 65)]
    assert sizes == sorted(sizes)
    half = memory(shape, batch=64, step=Step(rematerialize="every_2"))
    assert (
        memory(shape, batch=64, step=Step(rematerialize="all")).total
        < half.total
        < memory(shape, batch=64).total
        < memory(shape, batch=64, step=Step(precision="float32")).total
    )


@pytest.mark.parametrize("scan", [False, True])
def test_a_branch_computed_again_lies_between_all_and_none(scan):
    shape = shape_named("B/16")
    saved = {
        policy: memory(
            shape, batch=64, step=Step(rematerialize=policy, scan=scan)
        ).saved_per_image
        for policy in ("none", "attention", "mlp", "all")
    }
    assert saved["all"] < min(saved["attention"], saved["mlp"])
    assert max(saved["attention"], saved["mlp"]) < saved["none"]
    # A block has both branches, and "all" keeps one residual fewer than either.
    both = saved["attention"] + saved["mlp"] - saved["none"]
    assert saved["all"] <= both <= 2 * saved["all"]


def test_a_batch_is_at_least_one_image():
    with pytest.raises(ValueError, match="`batch` must be at least 1"):
        memory(shape_named("B/16"), batch=0)


def test_averages_and_summed_gradients_are_counted():
    shape = shape_named("S/16")
    parameters = 23_438_976 + 385_000  # facts: S/16 with a MAP head, and 1000 classes.
    options = {"tpu": False, "precision": "float32", "optimizer": "momentum"}
    plain = memory(shape, batch=64, step=Step(**options))
    averaged = memory(shape, batch=64, step=Step(average=True, **options))
    assert averaged.total - plain.total == 4 * parameters
    assert averaged.terms["average"] == 4 * parameters
    pieces = memory(shape, batch=64, step=Step(micro_batches=4, **options))
    quarter = memory(shape, batch=16, step=Step(**options))
    summed = pieces.terms["gradients"] - quarter.terms.get("gradients", 0)
    assert summed == 4 * parameters
    assert pieces.arguments == plain.arguments  # The whole batch is an argument.
    assert pieces.terms["activations"] == quarter.terms["activations"]


def test_adapters_have_gradients_and_state_and_the_frozen_weights_none():
    shape = shape_named("S/16")
    options = {"tpu": False, "precision": "float32", "optimizer": "momentum"}
    plain = memory(shape, batch=64, step=Step(**options))
    adapted = memory(shape, batch=64, step=Step(lora_rank=8, **options))
    # Per block q, k, v, out of 384 x 384, MLP of 384 x 1536, and six scales.
    factors = 12 * 8 * (4 * 768 + 2 * (384 + 1536))
    trained = factors + 385_000  # The classifier.
    added = 4 * (factors + 12 * 6)
    assert adapted.terms["weights"] == plain.terms["weights"] + added
    assert adapted.terms["first_moment"] == 4 * trained
    assert adapted.terms.get("gradients", 4 * trained) == 4 * trained
    assert adapted.total < plain.total
    with pytest.raises(ValueError, match="`lora_rank` must be at least 1"):
        Step(lora_rank=0)


def test_adapters_need_what_the_compiler_says():
    """Preflight of finetune.gin with lora.gin: B/16, 384 px, bfloat16, v3, batch 8."""
    step = Step(image_size=384, optimizer="momentum_hp", lora_rank=8)
    found = memory(shape_named("B/16"), batch=8, step=step, limit_bytes=LIMIT)
    assert found.arguments / GIB == pytest.approx(0.374, abs=0.001)
    assert found.total / GIB == pytest.approx(2.156, rel=0.05)
