"""Learning-rate multipliers by path: layer-wise decay and freezing, for fine-tuning."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.argument_types import Fraction, PositiveInt, check_arguments
from vit_scaling.optimization.path_rules import PathRules, check_pattern

# The weights before the first block, the layer furthest from the loss.
EMBEDDINGS = (
    r"(.*/)?(patch_embedding|position_embedding|class_token|register_tokens"
    r"|embedding_norm)/.*"
)


@check_arguments
def layerwise_decay(depth: PositiveInt, decay: Fraction = 0.9) -> PathRules:
    """Return multipliers that decrease from the head of a ViT to its patches.

    The multiplier of the k-th block from the top is decay^k. It is 1 for the layers
    after the blocks (final norm, pooling, classifier) and decay^(depth + 1) for the
    embeddings.

    Args:
        depth: Number of encoder blocks, named `block_00` and so on.
        decay: Factor from one layer to the one below; default 0.9, which the paper's
            authors later used for fine-tuning at 518 px (Alabdulmohsin et al. 2023,
            Appendix E). 1 changes nothing.

    Returns:
        Rules for an optimizer's `learning_rate_multipliers`.

    Raises:
        ValueError: `depth` is below 1, or `decay` is not in (0, 1].

    Example:
        >>> layerwise_decay(2, 0.5)[1:]
        (('(.*/)?block_00/.*', 0.25), ('(.*/)?block_01/.*', 0.5))
    """
    blocks = tuple(
        (rf"(.*/)?block_{number:02d}/.*", decay ** (depth - number))
        for number in range(depth)
    )
    return ((EMBEDDINGS, decay ** (depth + 1)), *blocks)


def freeze(*patterns: str) -> PathRules:
    """Return multipliers of 0 for the paths that a pattern matches completely.

    Put them before other rules, since the first match wins:
    `(*freeze(r".*/bias"), *layerwise_decay(12))`.

    Raises:
        ValueError: A pattern is not a regular expression.

    Example:
        >>> freeze("patch_embedding/.*")
        (('patch_embedding/.*', 0.0),)
    """
    for pattern in patterns:
        check_pattern("patterns", pattern)
    return tuple((pattern, 0.0) for pattern in patterns)


def train_only(*patterns: str) -> PathRules:
    """Return multipliers that freeze everything but the paths that a pattern matches.

    Raises:
        ValueError: A pattern is not a regular expression.

    Example:
        >>> train_only("(.*/)?head/.*")
        (('(.*/)?head/.*', 1.0), ('.*', 0.0))
    """
    for pattern in patterns:
        check_pattern("patterns", pattern)
    return (*((pattern, 1.0) for pattern in patterns), (".*", 0.0))
