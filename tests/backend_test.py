"""Programs that parts share: one per key and shape, called with each part's weights."""
# SPDX-License-Identifier: Apache-2.0

import tensorflow as tf

from vit_scaling import backend


def double(x):
    return 2 * x


def test_a_function_is_returned_itself_where_no_programs_are_shared():
    assert not backend.shares_programs()
    assert backend.share_program("double", double) is double


def test_a_program_is_traced_once_for_each_key_and_shape():
    programs = {}
    with backend.sharing_programs(programs):
        assert backend.shares_programs()
        for value in ([1.0], [2.0], [1.0, 2.0]):
            shared = backend.share_program("double", double)
            result = shared(tf.constant(value))
            assert result.numpy().tolist() == [2 * one for one in value]
        backend.share_program("other", double)
    assert list(programs) == ["double", "other"]
    assert programs["double"].experimental_get_tracing_count() == 2
    assert not backend.shares_programs()


def test_parts_inside_a_program_belong_to_it():
    programs = {}

    def outer(x):
        return backend.share_program("inner", double)(x)

    with backend.sharing_programs(programs):
        assert float(backend.share_program("outer", outer)(tf.constant(3.0))) == 6
    assert list(programs) == ["outer"]
