"""Estimates the memory of one training step by term and phase (§3.2, §3.4, Figure 8).

Every term is an array that the step needs, in the layout of the TPU compiler; no
constant is fitted to a measurement. The arrays kept for the backward pass are those of
the compiler's schedule for ViT-Ti/16: per block two residuals, query, key, value,
attention probabilities, attention output and the MLP's hidden layer before its GELU, in
the compute dtype. Layer norms and GELU are recomputed in fused kernels.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import math

from vit_scaling.adapters import is_trained, with_adapters
from vit_scaling.checks import check_at_least
from vit_scaling.modeling.rematerialization import recomputed_parts
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import is_matrix, vit_variables
from vit_scaling.optimization.state_size import moment_of
from vit_scaling.optimization.update_rule import BYTES, Shape
from vit_scaling.optimization.update_rules import RULES_BY_FLAG
from vit_scaling.scaling.planning.array_sizes import LANES, array_bytes, round_up
from vit_scaling.scaling.planning.flops import sequence_length
from vit_scaling.scaling.planning.step import Step

_CHANNELS = 3
# Fractions of a device's memory between which the compiler recomputes probabilities.
# For G/14 at batch 8 it does at 0.95, for s/16 at batch 1,536 it does not at 1.22; the
# exact thresholds are not known.
PRESSURE = (0.9, 1.2)
# XLA's GPU compiler recomputes until a step takes 80 % of the memory, or cannot.
GPU_PRESSURE = (0.8, math.inf)
# Memory of temporaries over the arrays that exist at the peak: the TPU compiler's
# allocator leaves gaps, but not among gradients, nor if each gradient is freed after
# its update. Fitted to the rows "fit" of planner_memory.json.
_FRAGMENTATION = 1.03
# XLA gives cuBLAS 32 MiB on a Hopper GPU, during products only. Half of them is counted
# (fitted).
_CUBLAS_WORKSPACE = 16 * 2**20


@dataclasses.dataclass(frozen=True)
class Memory:
    """Peak bytes of one training step.

    Attributes:
        arguments: Bytes of weights, optimizer state and the batch.
        temporaries: Peak bytes of the arrays that exist only within the step.
        phase: When the peak occurs: "forward end" or "backward end".
        terms: Name to bytes at the peak; they add up to `total`.
        saved_per_image: Bytes per image kept for the backward pass.
        recomputed: Whether the compiler recomputes the attention probabilities to
            save memory.
    """

    arguments: int
    temporaries: int
    phase: str
    terms: dict[str, int]
    saved_per_image: float
    recomputed: bool = False

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.arguments + self.temporaries


@dataclasses.dataclass(frozen=True)
class _Block:
    """Bytes per image of the arrays of one encoder block.

    Attributes:
        residual: One array of tokens.
        projection: Query, key or value.
        output: Attention's output.
        probabilities: Attention's weights of all queries or, if these attend in chunks,
            of a chunk.
        hidden: The MLP's hidden layer.
        copies: Arrays kept for each of probabilities and hidden layer: a GPU's kernels
            also keep logits, and the hidden layer after its GELU.
        normalized: The output of a norm, which a TPU's kernels compute again.
        chunked: Whether queries attend in chunks.
    """

    residual: int
    projection: int
    output: int
    probabilities: int
    hidden: int
    copies: int
    normalized: int
    chunked: bool

    @property
    def attention(self) -> int:
        """Bytes of attention kept for the backward pass."""
        kept = 0 if self.chunked else self.copies * self.probabilities
        return self.normalized + 3 * self.projection + self.output + kept

    @property
    def mlp(self) -> int:
        """Bytes of the MLP kept for the backward pass."""
        return self.normalized + self.copies * self.hidden

    @property
    def saved(self) -> int:
        """Bytes kept for the backward pass: two residuals, attention, MLP."""
        return 2 * self.residual + self.attention + self.mlp

    @property
    def reused(self) -> int:
        """Bytes of the MLP that attention's backward pass takes over.

        On a TPU attention's weights, unless chunked, do not fit into these gaps.
        """
        return self.mlp if self.chunked or self.copies == 2 else 0


def _block(shape: ViTShape, step: Step) -> _Block:
    tokens = sequence_length(shape, step.image_size, step.head)
    chunk = min(step.attention_chunk or tokens, tokens)

    def size(*dimensions: int) -> int:
        return array_bytes(dimensions, step.activation_bytes, tpu=step.tpu)

    # Attention's products have the tokens along the lanes: 257 take 384 (§3.2). Those
    # of cuBLAS have multiples of 8; for the probabilities one axis is counted so.
    padded = round_up(tokens, LANES if step.tpu else 8)
    projection = shape.heads * size(padded, shape.head_dim)
    residual = size(tokens, shape.width)
    return _Block(
        residual=residual,
        projection=projection,
        output=projection if step.tpu else residual,
        probabilities=shape.heads * size(chunk, tokens if step.tpu else padded),
        hidden=size(tokens, shape.mlp_width),
        copies=1 if step.tpu else 2,
        normalized=0 if step.tpu else residual,
        chunked=chunk < tokens,
    )


def memory(
    shape: ViTShape,
    *,
    batch: int,
    step: Step | None = None,
    limit_bytes: float | None = None,
) -> Memory:
    """Return the peak memory of one training step of `batch` images on one device.

    The peak is at the end of the forward pass (all activations kept for the backward
    pass) or at the end of the backward pass (all gradients, if they are clipped, and
    the first block's work). In between, activations are replaced by gradients.

    Args:
        shape: The model's dimensions.
        batch: Images per device.
        step: All other settings; default `Step()`.
        limit_bytes: The device's memory. Between the fractions `PRESSURE` of it, on a
            GPU `GPU_PRESSURE`, the compiler does not keep the attention probabilities
            but recomputes them from query and key.

    Raises:
        ValueError: `batch` is not positive.
    """
    step = step or Step()
    check_at_least(1, batch=batch)
    usual = _memory(shape, batch, step, recomputed=False)
    if limit_bytes is None or step.scan:
        return usual
    low, high = PRESSURE if step.tpu else GPU_PRESSURE
    if low < usual.total / limit_bytes <= high:
        return _memory(shape, batch, step, recomputed=True)
    return usual


def _memory(shape: ViTShape, batch: float, step: Step, *, recomputed: bool) -> Memory:
    arguments = _arguments(shape, batch, step)
    batch = math.ceil(batch / step.micro_batches)
    block, gradients = _block(shape, step), _gradients(shape, step)
    images = _patches(shape, step, batch)
    saved = _saved(shape, step, block, recomputed)
    forward = {
        "activations": round(batch * saved),
        "work": round(batch * _forward_work(block, step)) + images,
    }
    backward = {
        "gradients": gradients,
        "work": round(batch * _backward_work(block)) + images,
    }
    if not step.tpu:  # A GPU's kernels read matrices that were converted before.
        forward["converted"] = _converted(shape, step)
        forward["work"] += _CUBLAS_WORKSPACE
        backward["work"] += _CUBLAS_WORKSPACE
    if step.micro_batches > 1:
        # The sums of gradients are float32. Images are converted before the loop.
        sums = 4 * sum(n * math.prod(size) for _, size, n in _trained(shape, step))
        pixels = batch * step.micro_batches * _CHANNELS * step.image_size**2
        forward["gradients"], backward["gradients"] = sums, gradients + sums
        forward["work"] += _head_sums(shape, step)
        for phase in (forward, backward):
            phase["converted"] = _converted(shape, step, pixels)
    if step.scan:
        # The stacked gradients and the stacked low-precision weights exist during the
        # whole loop.
        stacked = {"gradients": gradients, "weights_copy": _stacked_copy(shape, step)}
        phases = {"forward end": {**forward, **stacked}}
    else:
        phases = {"forward end": forward, "backward end": backward}
    fullest = max(phases, key=lambda name: sum(phases[name].values()))
    gaps = _FRAGMENTATION if step.tpu and step.clip and not step.scan else 1.0
    temporaries = {
        name: size if name == "gradients" else round(gaps * size)
        for name, size in phases[fullest].items()
    }
    temporaries["work"] = max(0, temporaries["work"] - step.on_chip_bytes)
    return Memory(
        arguments=sum(arguments.values()),
        temporaries=sum(temporaries.values()),
        phase=fullest,
        terms={**arguments, **temporaries},
        saved_per_image=saved,
        recomputed=recomputed,
    )


@functools.lru_cache(maxsize=4096)
def _weights(shape: ViTShape, step: Step) -> tuple[tuple[str, Shape, int], ...]:
    """Return (path, shape, count) of the weights; all blocks count as one."""
    one_block = dataclasses.replace(shape, depth=1)
    variables = vit_variables(one_block, **step.model_options)
    if step.lora_rank is not None:
        variables = with_adapters(variables, step.lora_rank)
    return tuple(
        (path, size, shape.depth if path.startswith("block_") else 1)
        for path, size in variables.items()
    )


def _trained(shape: ViTShape, step: Step) -> tuple[tuple[str, Shape, int], ...]:
    """Return those of `_weights` that have gradients and optimizer state."""
    weights = _weights(shape, step)
    if step.lora_rank is None:
        return weights
    return tuple(weight for weight in weights if is_trained(weight[0]))


@functools.lru_cache(maxsize=4096)
def _state(shape: ViTShape, step: Step) -> tuple[tuple[str, int], ...]:
    """Return the bytes of the weights, the first and the second moment."""
    rule = RULES_BY_FLAG[step.optimizer]
    sizes = {"weights": 0, "first_moment": 0, "second_moment": 0}
    for _, size, count in _weights(shape, step):
        sizes["weights"] += count * array_bytes(size, 4, tpu=step.tpu)
    for _, size, count in _trained(shape, step):
        if step.average:
            average = count * array_bytes(size, 4, tpu=step.tpu)
            sizes["average"] = sizes.get("average", 0) + average
        for name, slot in rule.slots(size).items():
            slot_bytes = array_bytes(slot.shape, BYTES[slot.dtype], tpu=step.tpu)
            sizes[moment_of(name)] += count * slot_bytes
    return tuple(sizes.items())


def _arguments(shape: ViTShape, batch: float, step: Step) -> dict[str, int]:
    side, images = step.image_size, math.ceil(batch)
    pixels = array_bytes((images, _CHANNELS, side, side), 4, tpu=step.tpu)
    labels = array_bytes((images, step.classes or 1), 4, tpu=step.tpu)
    return {**dict(_state(shape, step)), "batch": pixels + labels}


def _gradients(shape: ViTShape, step: Step) -> int:
    """Return the bytes of the gradients that exist at the same time."""
    counts = [count * math.prod(size) for _, size, count in _trained(shape, step)]
    if step.micro_batches > 1 and not step.scan:
        return step.activation_bytes * sum(counts)  # Before they are added to the sum.
    if step.scan:
        return 4 * sum(counts)  # Stacked along the loop, in the weights' own dtype.
    if step.clip:
        return step.gradient_bytes * sum(counts)
    # Each gradient is freed after its update; the largest exists in any case.
    return step.activation_bytes * max(
        math.prod(size) for _, size, _ in _trained(shape, step)
    )


def _head_sums(shape: ViTShape, step: Step) -> int:
    """Return the bytes of the head's new sums of gradients, made before the blocks'."""
    return 4 * sum(
        n * math.prod(size) for path, size, n in _trained(shape, step) if "head" in path
    )


def _converted(shape: ViTShape, step: Step, pixels: int = 0) -> int:
    """Return the bytes of all matrices and of the pixels in the compute dtype."""
    if step.activation_bytes == 4:
        return 0
    matrices = sum(
        n * math.prod(size)
        for path, size, n in _weights(shape, step)
        if is_matrix(path)
    )
    return step.activation_bytes * (matrices + pixels)


def _stacked_copy(shape: ViTShape, step: Step) -> int:
    if step.activation_bytes == 4:
        return 0
    blocks = sum(
        count * math.prod(size)
        for path, size, count in _weights(shape, step)
        if path.startswith("block_") and is_matrix(path)
    )
    return step.activation_bytes * blocks


def _patches(shape: ViTShape, step: Step, batch: float) -> int:
    """Return the bytes of the patches, kept for the gradient of their kernel."""
    features = _CHANNELS * shape.patch**2
    itemsize = step.activation_bytes
    return shape.tokens(step.image_size) * array_bytes(
        (math.ceil(batch), features), itemsize, tpu=step.tpu
    )


def _saved(shape: ViTShape, step: Step, block: _Block, recomputed: bool) -> int:
    """Return the bytes per image of all blocks kept for the backward pass."""
    parts = recomputed_parts(step.rematerialize, shape.depth)
    if step.scan:
        # The loop's carry is float32. Without rematerialisation it keeps every array
        # that the gradient needs, since fusions do not cross iterations.
        carry = block.residual * 4 // step.activation_bytes
        by_part = {
            "attention": 2 * carry + 4 * block.projection + 2 * block.probabilities,
            "mlp": carry + 4 * block.hidden,
        }
        part = parts[0]  # All blocks share the loop's body.
        kept = 0 if part == "all" else sum(by_part.values()) - by_part.get(part, 0)
        return shape.depth * (carry + kept)
    spared = block.probabilities if recomputed and not block.chunked else 0
    attention = block.attention - spared
    kept_without = {
        "none": 2 * block.residual + attention + block.mlp,
        "attention": 2 * block.residual + block.mlp,
        "mlp": 2 * block.residual + attention,
        "all": block.residual,
    }
    return sum(kept_without[part] for part in parts)


def _forward_work(block: _Block, step: Step) -> int:
    """Return the bytes per image of the last block's backward pass, if saved is full.

    It is fullest at the MLP or, if there are many tokens, at attention.
    """
    part = recomputed_parts(step.rematerialize, depth=1)[0]
    at_mlp = {"none": 0, "attention": 0, "mlp": block.mlp, "all": block.saved}[part]
    at_attention = {
        "none": -block.reused,
        "attention": block.attention - block.reused,
        "mlp": 0,
        "all": block.saved - block.reused,
    }[part]
    return max(at_mlp + _mlp_work(block), at_attention + _attention_work(block))


def _mlp_work(block: _Block) -> int:
    """Gradients of the residual and of the hidden layer, after and before its GELU."""
    return block.residual + 2 * block.hidden


def _attention_work(block: _Block) -> int:
    """Gradients of residual, output, query, probabilities and, on a GPU, logits."""
    # A GPU's kernels also pad the probabilities. On a TPU a gap remains, since
    # the array is large (fitted).
    gap = 0.0 if block.chunked else 0.2
    arrays = 3.0 if block.copies == 2 else 1.0 + gap
    if block.chunked:  # Those of this chunk, and two of the next, which starts early.
        arrays += block.copies + 2
    probabilities = round(arrays * block.probabilities)
    return block.residual + 2 * block.projection + probabilities


def _backward_work(block: _Block) -> int:
    """Return the bytes per image of the first block's backward pass."""
    return block.saved + max(_mlp_work(block), _attention_work(block) - block.reused)
