"""The forms in which a command line names a source of images; no TensorFlow."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.naming import did_you_mean

# ImageNet's test sets; their layouts are in published_sets.py.
PUBLISHED = (
    *("imagenet-val", "imagenet-real", "imagenet-v2", "imagenet-a", "imagenet-r"),
    *("imagenet-sketch", "objectnet"),
)
FORMS = {
    "folder": "folder:PATH (a subfolder per class)",
    "csv": "csv:FILE (columns path, labels)",
    "tar": "tar:GLOB",
    "tfds": "tfds:NAME[:SPLIT]",
    "tfrecords": "tfrecords:PATTERN",
    "digits": "digits",
    **{name: f"{name}:FOLDER" for name in PUBLISHED},
}


def check_source(text: str) -> None:
    """Check that a text has one of the forms; whether files exist is seen later.

    Raises:
        ValueError: It has none of them.
    """
    kind, _, rest = text.partition(":")
    if kind not in FORMS or bool(rest) == (kind == "digits"):
        raise ValueError(
            f"`source` must be one of {', '.join(FORMS.values())}; received {text!r}."
            f"{did_you_mean(kind, FORMS)}"
        )
