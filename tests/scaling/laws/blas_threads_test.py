"""BLAS is limited to one thread inside the context only."""
# SPDX-License-Identifier: Apache-2.0

from threadpoolctl import threadpool_info

from vit_scaling.scaling.laws.blas_threads import one_blas_thread


def blas_threads():
    return [
        lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"
    ]


def test_blas_has_one_thread_inside_and_as_many_as_before_after():
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        inside = len(blas_threads())
    before = blas_threads()
    with one_blas_thread():
        pass
    assert blas_threads() == before
    assert len(before) == inside > 0
