"""Groups are fitted one by one; those that cannot be fitted say why."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.example_runs import runs_on_law, runs_on_surface
from vit_scaling.scaling.laws.law_estimates import LawOptions
from vit_scaling.scaling.studies.group_fits import (
    FORMS,
    GroupOptions,
    describe,
    fit_groups,
    text_tables,
)

LAW = LawOptions(resamples=20)


@pytest.mark.parametrize("form", sorted({*FORMS} - {"bnsl"}))
def test_every_form_fits_a_table_with_sizes(form):
    options = GroupOptions(form, LAW)
    # A broken power law has six coefficients, too many for these eight budgets.
    runs = runs_on_surface(noise=0.001, unique=2e10)
    found = describe({"": runs}, options, budgets=[1e23])
    (group,) = found["groups"]
    assert "reason" not in group, group
    assert group["parameters"] and group["requested"][0]["compute"] == 1e23
    header, rows = text_tables(group)[0]
    assert header[0] == "coefficient" and rows


def test_a_group_that_cannot_be_fitted_has_a_reason():
    groups = {"good": runs_on_law(), "small": runs_on_law(count=2)}
    results, reasons = fit_groups(groups, GroupOptions("m2", LAW).fit)
    assert results.keys() == {"good"} and "Too few points" in reasons["small"]


def test_options_are_checked_before_any_fit():
    with pytest.raises(ValueError, match="Did you mean 'isoflop'"):
        GroupOptions("isoflops", LAW)
    with pytest.raises(ValueError, match="leave_out_largest"):
        GroupOptions("paper", LAW, leave_out_largest=5)
