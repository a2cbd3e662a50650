"""The answer of a plan states whether it fits, its rate, its cost and its error."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.modeling.shapes import shape_named
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.planning.devices import device_named
from vit_scaling.scaling.planning.plan_text import answer_of, groups_of
from vit_scaling.scaling.planning.planner import plan, plan_budget

V3 = device_named("tpu_v3")


def test_a_run_is_answered_with_its_rate_and_cost():
    result = plan(
        shape_named("B/16"), batch=8, device=V3, images=3.6e6,
        images_per_second=100.0, price_per_hour=3.0,
    )  # fmt: skip
    answer = answer_of(result)
    assert "up to" in answer and "100 images/s: measured, as given." in answer
    assert "take 10 hours, 0.4167 TPUv3 core-days, at a price of 30." in answer


def test_a_budget_is_answered_with_shape_data_and_error():
    result = plan_budget(paper_runs(), 1e5, resamples=50, device=V3)
    answer = answer_of(result)
    assert answer.startswith(f"Train {result['shape']} on ")
    assert "1e+05 TPUv3 core-days then give an error of 0." in answer
    assert "this extrapolates" in answer


def test_every_value_is_in_one_group():
    result = plan(shape_named("B/16"), batch=8, device=V3)
    rows = [row[0].partition(":")[0] for _, rows in groups_of(result) for row in rows]
    missing = {name for name, value in result.items() if value is not None} - set(rows)
    assert missing == {"fits", "throughput_is_measured"}


def test_long_values_continue_on_the_next_line():
    result = plan(shape_named("B/16"), batch=8, device=device_named("tpu_v4"))
    rows = [row for _, rows in groups_of(result) for row in rows]
    assert max(len(value) for _, value in rows) <= 60
    first = [name for name, _ in rows].index("device_source")
    (_, start), (name, rest) = rows[first : first + 2]
    assert name == "" and f"{start} {rest}" == result["device_source"]
