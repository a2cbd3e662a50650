"""Small results of every benchmark, as its `run` returns them."""
# SPDX-License-Identifier: Apache-2.0

SPREAD = {"min": 1.0, "median": 2.0, "max": 4.0, "of_minima": 1.0}
FIT = {"per_variable_seconds": 1e-3, "per_copy_seconds": 1e-4, "largest_residual": 0.1}
PROGRAM = {"seconds": SPREAD, "share_of_gemm_peak": SPREAD}
METHOD = {
    "by_alteration": {"flipped": 1.0, "in grey": 0.5},
    "recall": 0.75,
    "precision": 1.0,
    "threshold": 3,
    "cpu_seconds_per_1000_images": 7.7,
}
METHODS = ("this package", "imagehash.phash", "imagehash.dhash", "imagededup.PHash")


def step_result(measure: str, *runs: str) -> dict:
    """A comparison of `benchmark step --measure`."""
    result = {"shape": "S/16", "measure": measure}
    if measure in ("first_step", "depths"):
        clocks = {"wall": SPREAD, "processor": SPREAD}
        return {
            **result,
            "seconds": dict.fromkeys(runs, clocks),
            "ratio": {"wall": SPREAD, "processor": SPREAD},
        }
    return {
        **result,
        "spread_of_seconds_per_step": dict.fromkeys(runs, SPREAD),
        "ratio_of_rounds": dict.fromkeys(runs, SPREAD),
    }


def coverage_result(method: str, repeated: int = 0) -> dict:
    cell = {"coverage": 0.95, "too_low": False}
    cells = {"ahead": cell, "within": {**cell, "too_low": True}, "floor": None}
    widths = {"ahead_width": 0.1, "within_width": None}
    row = {"truth": "law", "runs": 1000, "noise": 0.005, **cells, **widths}
    return {"method": method, "repeated": repeated, "cells": [row]}


def optimizer_result(*, xla: bool) -> dict:
    ratios = {"over_bound": 2.0, "spread": SPREAD, "ratio": SPREAD}
    row = {"bound_seconds": 0.1, **ratios}
    return {"shape": "B/16", "xla": xla, "updates": {"adam": row}}


ACCELERATOR_ROW = {
    "shape": "B/16",
    "batch": 64,
    "mode": "training",
    "engine": "vit_scaling",
    "images_per_second": 900.0,
    "peak_memory_gib": 5.0,
    "seconds": SPREAD,
}
PIPELINE_ROW = {
    "images": 1600,
    "images_per_second": dict.fromkeys(("limit", "plain_loop", "pipeline"), SPREAD),
    "rate_over": dict.fromkeys(("limit", "plain_loop", "pipeline"), SPREAD),
    "limit_cpu_ms_per_image": 0.8,
    "plain_loop_cpu_ms_per_image": 0.9,
    "pipeline_cpu_ms_per_image": 1.0,
}

# By benchmark; several where the flags choose the tables.
RESULTS: dict[str, list[dict]] = {
    "step": [
        {
            "shape": "S/16",
            "training": PROGRAM,
            "inference": PROGRAM,
            "training_images_per_second": 8.0,
            "inference_images_per_second": 24.0,
        },
        step_result("peers", "xla", "graph", "timm_compile", "timm_eager"),
        step_result("loops", "100_steps_per_loop", "1_step_per_loop"),
        step_result("first_step", "this_version", "other_version"),
    ],
    "optimizer": [optimizer_result(xla=True), optimizer_result(xla=False)],
    "pipeline": [
        {
            "pipeline": [PIPELINE_ROW],
            "stages": {"read_and_shuffle_images_per_second": 9000.0},
            "resume_seconds_at_step": {"10": 0.1, "1000000": 0.2},
            "read_latency": [{"read_latency_ms": 20.0, "max_mib_in_flight": 7.0}],
            "opening": [{"read_latency_ms": 20.0, "shards": 30000}],
        },
        {"memory": [{"images": 8000, "before_mib": 702.0, "peak_mib": 2205.0}]},
    ],
    "scale": [
        {
            "sets": [{"records": 1000, "host_peak_mib": 3.1}],
            "search": [{"evaluation_images": 5, "cpu_ms_per_training_image": 0.1}],
            "listing": [],
            "indexing": {"programs": [{"program": "indexing", **SPREAD}]},
        }
    ],
    "writing": [
        {
            "images_per_second": dict.fromkeys(("copy", "check", "write"), SPREAD),
            "rate_over_copy": dict.fromkeys(("copy", "check", "write"), SPREAD),
        }
    ],
    "fewshot": [
        {
            "strengths": 10,
            "seconds": dict.fromkeys(("ours", "sweep", "sklearn_ridge"), SPREAD),
            "memory_mib": {"ours": 169.0, "sweep": 169.0, "sklearn_ridge": 532.0},
            "seconds_over_sklearn": SPREAD,
        }
    ],
    "fit": [
        {
            "seconds": dict.fromkeys(("frontier", "surface", "curve_fit"), SPREAD),
            "curve_fit_over": {"frontier": SPREAD, "surface": SPREAD},
        }
    ],
    "inference": [
        {
            "shapes": {
                "S/16": {
                    "batches": {
                        8: {
                            "saved_model": {
                                "images_per_second": 4.0,
                                "p90_seconds": 3.0,
                                "seconds": SPREAD,
                            }
                        }
                    },
                    "first_answer_spread": {"litert": SPREAD},
                }
            },
            "imports": {
                "seconds": {"import keras": SPREAD, "import vit": SPREAD},
                "ratio_of_rounds": SPREAD,
            },
        }
    ],
    "predict": [
        {
            "images_per_second": {"predict": 13.4, "torch_dataloader": 12.9},
            "seconds": {"predict": SPREAD, "torch_dataloader": SPREAD},
            "speed_over_peer": SPREAD,
        }
    ],
    "coverage": [
        coverage_result("auto"),
        coverage_result("frontier"),
        coverage_result("fission", repeated=20),
    ],
    "accelerator": [
        {
            "device": "a GPU",
            "rows": [
                ACCELERATOR_ROW,
                {**ACCELERATOR_ROW, "engine": "timm, torch.compile"},
            ],
            "preflight": {"compiled_gib": 4.0, "measured_gib": 5.0, "ratio": 1.25},
        }
    ],
    "parity": [
        {
            "epochs": 20,
            "seeds": [0, 1],
            "top1": {"vit_scaling": [[0.5] * 20] * 2, "big_vision": [[0.6] * 20] * 2},
        }
    ],
    "checkpoint": [
        {
            "state_bytes": 2**31,
            "files": 2,
            "largest_file_bytes": 2**30,
            "save_blocks_seconds": 0.05,
            "save_memory_over_state": 1.01,
            "restore_memory_over_state": 1.06,
        }
    ],
    "startup": [
        {
            "rows": [{"replicas": 1, "create_seconds": 0.2, "restore_seconds": 0.1}],
            "fits": {"create": FIT, "restore": FIT},
            "plain_variable_seconds": 3e-4,
        }
    ],
    "deduplication": [{"methods": dict.fromkeys(METHODS, METHOD)}],
}
