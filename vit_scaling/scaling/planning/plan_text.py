"""A plan as text: the answer in one paragraph, then tables by subject."""
# SPDX-License-Identifier: Apache-2.0

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.scaling.laws.compute_units import parse_unit

_GIB = 2**30
_GROUPS = {
    "Time and cost": (
        *("images", "images_seen", "steps_at_4096", "images_per_second"),
        *("images_per_second_at_most", "images_per_second_from", "device_hours"),
        *("core_hours", "hours", "hours_from", "compute", "training_flops", "price"),
    ),
    "Error": (*("error", "error_interval", "run_interval", "extrapolated", "law"),),
    "Memory": (
        *("memory_bytes", "memory_phase", "probabilities_recomputed"),
        *("device_bytes", "largest_batch"),
    ),
}
# These are in the answer and the notes.
_LEFT_OUT = {"fits", "nearest_fit", "throughput_is_measured", "notes"}
_VALUE_WIDTH = 60  # Characters; longer values continue on the next line.


def answer_of(result: Mapping[str, Any]) -> str:
    """Return the answer of `plan` or `plan_budget` in one paragraph."""
    return _answer_of_budget(result) if "budget" in result else _answer_of_run(result)


def _answer_of_run(result: Mapping[str, Any]) -> str:
    used, size = result["memory_bytes"]["total"], result["device_bytes"]
    amounts = f"{used / _GIB:.2f} of {size / _GIB:.2f} GiB"
    where = f"at {result['batch']} images on {result['device']}"
    if result["fits"]:
        text = (
            f"It fits: {amounts} {where}; up to {result['largest_batch']} images fit."
        )
    else:
        terms = {k: v for k, v in result["memory_bytes"].items() if k != "total"}
        largest = max(terms, key=lambda name: terms[name])
        text = (
            f"It does not fit: {amounts} {where}, {(used - size) / _GIB:.2f} too much. "
            f"The largest part is {largest.replace('_', ' ')}, "
            f"{terms[largest] / _GIB:.2f} GiB. "
        )
        nearest = result["nearest_fit"]
        text += f"It fits with {nearest}." if nearest else "No known device holds it."
    rate = result["images_per_second"]
    if rate is not None:
        text += (
            f" Its rate is {rate:,.3g} images/s: {result['images_per_second_from']}."
        )
    if "hours" in result:
        unit = parse_unit(result["compute"]["unit"]).label
        price = result["price"]
        text += (
            f" {result['images']:.3g} images take {result['hours']:,.4g} hours, "
            f"{result['compute']['number']:,.4g} {unit}"
            + (f", at a price of {_price_text(price)}." if price is not None else ".")
        )
    return text


def _price_text(price: float) -> str:
    return f"{price:,.0f}" if price >= 1000 else f"{price:.4g}"


def _answer_of_budget(result: Mapping[str, Any]) -> str:
    unit = parse_unit(result["compute_unit"]).label
    low, high = result["error_interval"] or (None, None)
    interval = "" if low is None else f" (95 % interval {low:.4f} to {high:.4f})"
    data = result["data_images"]
    text = (
        f"Train {result['shape']} on {result['images_seen']:.3g} images"
        + (f" of a set of at least {data:.3g}" if data is not None else "")
        + f": {result['budget']:.4g} {unit} then give an error of "
        f"{result['error']:.4f}{interval}."
    )
    if result["extrapolated"]:
        text += " The budget is outside the range of the runs: this extrapolates."
    if "hours" in result:
        text += (
            f" On {result['device']} it takes {result['core_hours']:,.4g} hours of one "
            f"replica, from {result['hours_from']}."
        )
    return text


def groups_of(result: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the tables by title; what belongs to no other is the model's."""
    named = {name for names in _GROUPS.values() for name in names}
    rest = [name for name in result if name not in named | _LEFT_OUT]
    groups = [
        (title, [row for name in names if name in result
                 for row in _rows(name, result[name])])
        for title, names in {"Model and device": rest, **_GROUPS}.items()
    ]  # fmt: skip
    return [(title, rows) for title, rows in groups if rows]


def _rows(name: str, value: Any) -> list[list[str]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [row for key in value for row in _rows(f"{name}: {key}", value[key])]
    lines = textwrap.wrap(_cell(value, is_bytes="bytes" in name), _VALUE_WIDTH)
    return [["" if number else name, line] for number, line in enumerate(lines)]


def _cell(value: Any, *, is_bytes: bool = False) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | Sequence):
        return str(value)
    if isinstance(value, str):
        return value
    if is_bytes and not isinstance(value, Sequence):
        return f"{value / _GIB:.3f} GiB"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return " ".join(_cell(item) for item in value)
