"""The registered update rules: one row makes a rule known to every other module.

`plan --optimizer`, the table of state sizes, the benchmark, gin and the conformance
tests read this table.
"""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.lion import Lion
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.update_rule import UpdateRule

# Name in tables to rule; -HP stands for a first moment in half precision (§3.4).
UPDATE_RULES: dict[str, UpdateRule] = {
    "Adam": Adam(),
    "Adam-HP": Adam(first_moment_dtype="bfloat16"),
    "Adafactor": Adafactor(),
    "Momentum": Momentum(),
    "Momentum-HP": Momentum(momentum_dtype="bfloat16"),
    "Lion": Lion(),
}
# The same by the names that flags use, such as "adam_hp".
RULES_BY_FLAG = {
    name.lower().replace("-", "_"): rule for name, rule in UPDATE_RULES.items()
}
RULE_CLASSES = tuple(dict.fromkeys(type(rule) for rule in UPDATE_RULES.values()))
