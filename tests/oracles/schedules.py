"""Learning-rate schedules in plain Python, from the paper and its authors' code."""
# SPDX-License-Identifier: Apache-2.0

import math

# Base 8e-4, warm-up and timescale 10,000, cooldown 50,000, total 1,000,000 (App. C).
GOLDEN_RSQRT = (
    (0, 0.0),
    (1, 8e-8),
    (5_000, 4e-4),
    (10_000, 8e-4),
    (20_000, 5.6568542e-4),
    (40_000, 4e-4),
    (90_000, 2.6666667e-4),
    (500_000, 1.1313708e-4),
    (950_000, 8.2078268e-5),
    (975_000, 4.0509575e-5),
    (1_000_000, 0.0),
)


def rsqrt(step, *, base, total, warmup, cooldown, timescale, shift=0):
    if step >= warmup:
        rate = base / math.sqrt(1 + (step + shift - warmup) / timescale)
    else:
        rate = base / math.sqrt(1 + shift / timescale)
    return _ramps(rate, step, total, warmup, cooldown)


def linear(step, *, base, total, warmup, cooldown=0, end=0.0):
    rate = end + (base - end) * (1 - _progress(step, total, warmup))
    return _ramps(rate, step, total, warmup, cooldown)


def cosine(step, *, base, total, warmup, cooldown=0):
    rate = base * 0.5 * (1 + math.cos(math.pi * _progress(step, total, warmup)))
    return _ramps(rate, step, total, warmup, cooldown)


def constant(step, *, base, total, warmup, cooldown, plateau=1.0, fall=0):
    rate = base
    if fall:
        rate = base * max(plateau, 1 - (1 - plateau) * max(0, step - warmup) / fall)
    return _ramps(rate, step, total, warmup, cooldown)


def _progress(step, total, warmup):
    return min(1.0, max(0.0, (step - warmup) / (total - warmup)))


def _ramps(rate, step, total, warmup, cooldown):
    if warmup:
        rate *= min(1, step / warmup)
    if cooldown:
        rate *= min(1, (total - step) / cooldown)
    return rate
