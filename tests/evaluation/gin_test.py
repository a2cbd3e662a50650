"""The gin file of the paper's few-shot sets builds the evaluator that it says."""
# SPDX-License-Identifier: Apache-2.0

import gin
import pytest

from vit_scaling import configurables
from vit_scaling.evaluation import evaluators
from vit_scaling.image_preprocessing import SquashAndCrop

RUN = ("experiments/vit_s16.gin", "evaluation/fewshot.gin")
BINDINGS = ("TRAIN_PATTERN = 'a'", "EVAL_PATTERN = 'b'", "CLASSES = 10")


@pytest.fixture
def evaluator():
    configurables.parse(RUN, [*BINDINGS, "FEWSHOT_DATA_DIR = '/data'"])
    return gin.get_configurable(evaluators.FewShot)()


def test_sets_are_the_papers(evaluator):
    rows = {
        one.name: (
            one.train.source.name,
            one.train.source.split,
            one.test.source.split,
            one.train.classes,
            one.shots,
        )
        for one in evaluator._sets
    }
    assert rows == {
        "imagenet": ("imagenet2012", "train[:65000]", "validation", 1000, None),
        "cifar100": ("cifar100", "train", "test", 100, None),
        "pets": ("oxford_iiit_pet", "train", "test", 37, None),
        "birds": ("caltech_birds2010", "train", "test", 200, (1, 5, 10)),
    }
    for one in evaluator._sets:
        for part in (one.train, one.test):
            assert part.image_size == 224
            assert part.preprocess == SquashAndCrop()
            assert part.source.data_dir == "/data"
            assert (part.source.image_key, part.source.label_key) == ("image", "label")


def test_settings_are_the_authors(evaluator):
    assert evaluator.interval_steps == 10_000
    assert evaluator._shots == (1, 5, 10, 25)
    assert evaluator._seeds == (0, 1, 2)
    assert evaluator._strengths == (1024.0,)
