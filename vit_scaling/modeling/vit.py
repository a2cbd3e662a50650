"""Builds Vision Transformers as functional Keras models (§3)."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import Any, Literal

import keras

from vit_scaling.argument_types import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    check_arguments,
)
from vit_scaling.modeling import noise
from vit_scaling.modeling.blocks import BlockOptions, EncoderBlock
from vit_scaling.modeling.head_specs import HeadName
from vit_scaling.modeling.heads import HeadMaker, make_head
from vit_scaling.modeling.layers import PatchEmbedding, layer_norm
from vit_scaling.modeling.positions import LearnedPositions, SinCosPositions
from vit_scaling.modeling.rematerialization import recomputed_parts
from vit_scaling.modeling.shapes import ViTShape, as_shape
from vit_scaling.modeling.tokens import ClassToken, DropRegisters, RegisterTokens
from vit_scaling.naming import check_known

Dtype = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@check_arguments
def vit(
    shape: str | ViTShape,
    head: HeadName | HeadMaker = "map",
    *,
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224,
    channels: PositiveInt = 3,
    classes: PositiveInt | None = 1000,
    position: Literal["learned", "sincos"] = "learned",
    representation_width: PositiveInt | None = None,
    head_bias: float = 0.0,
    dropout: Probability = 0.0,
    stochastic_depth: Probability = 0.0,
    dtype: Dtype = "float32",
    rematerialize: str = "none",
    attention_chunk: PositiveInt | None = None,
    approximate_gelu: bool = True,
    norm_epsilon: PositiveFloat = 1e-6,
    layer_scale: NonNegativeFloat | None = None,
    qk_norm: bool = False,
    register_tokens: NonNegativeInt = 0,
    norm_before_blocks: bool = False,
    norm_after_pooling: bool = False,
    crop_to_patches: bool = False,
    seed: NonNegativeInt | None = None,
    input_tensor: Any = None,
    name: str = "vit",
) -> keras.Model:
    """Build a Vision Transformer (Zhai et al. 2022, §3; defaults are the paper's).

    Layers: images, patch_embedding, position_embedding, [class_token,]
    [register_tokens,] [embedding_norm,] block_00 …, encoder_norm, map_head | gap_head |
    token_head, pre_logits, head. `outputs_at` returns the output of any of them.

    Args:
        shape: A shape or its name, such as "B/16".
        head: "map" (attention pooling), "gap", "token", "none", or a function from the
            shape to a pooling layer.
        image_size: Side of the images in pixels, or (height, width).
        channels: Channels of the images.
        classes: Width of the classifier; without one (None) the output is pre_logits.
        position: "learned" or "sincos".
        representation_width: Width of a dense layer with tanh before the classifier
            (ViT, ICLR 2021); None, as in the paper, leaves it out.
        head_bias: Initial value of the classifier's bias (-10 in App. C).
        dropout: Fraction of activations dropped in training.
        stochastic_depth: Fraction of examples that skip the last block's branches in
            training; it grows linearly from 0 at the first block.
        dtype: "float32", or "mixed_bfloat16" (variables and logits stay float32); or
            "mixed_float16", which needs a `LossScale`.
        rematerialize: Parts of the blocks recomputed in the backward pass: "none",
            "all", "attention", "mlp" or "every_N" (blocks 0, N, 2N, …).
        attention_chunk: Number of queries that attend at a time, such as 512, which
            saves memory if there are many tokens; None: all.
        approximate_gelu: GELU by tanh, as in the authors' code; False: by erf.
        norm_epsilon: Epsilon of all norms (1e-6 in the authors' code).
        layer_scale: Initial value of LayerScale's factors; None leaves it out.
        qk_norm: Normalise queries and keys per head.
        register_tokens: Number of register tokens.
        norm_before_blocks: Normalise the tokens before the first block too, as CLIP's
            image towers do.
        norm_after_pooling: Average the tokens and then normalise the average, as
            timm's `fc_norm`; only with the GAP head. The paper normalises the tokens.
        crop_to_patches: Ignore the pixels at the lower and right edge that fill no
            patch, as 6 of 384 with patches of 14; False raises an error.
        seed: Seed of initial values and dropout masks; None takes it from Keras'
            global generator (`keras.utils.set_random_seed`).
        input_tensor: A Keras tensor of images (batch, h, w, c) to build on.
        name: The model's name.

    Returns:
        A model from "images" (batch, height, width, channels) in [-1, 1] to float32
        logits (batch, classes). The classifier's kernel is initialised with zeros.

    Raises:
        ValueError: An argument is out of its range or not a known name.

    Example:
        >>> vit("mu/16", image_size=32, classes=10).output_shape
        (None, 10)
    """
    shape, seed = as_shape(shape), noise.seed_or_random(seed)
    images = _images(image_size, channels, input_tensor)
    sides = images.shape[1:3]
    grid = shape.grid(sides)
    _check_whole_patches(shape.patch, sides, crop_to_patches)

    def options(part: str) -> dict[str, Any]:
        return {"name": part, "dtype": dtype, "seed": noise.seed_for(seed, part)}

    pool = make_head(
        head,
        shape,
        norm_epsilon=norm_epsilon,
        approximate_gelu=approximate_gelu,
        dtype=dtype,
        seed=seed,
    )
    _check_order(norm_after_pooling, head)
    x = PatchEmbedding(shape.width, shape.patch, **options("patch_embedding"))(images)
    positions = LearnedPositions if position == "learned" else SinCosPositions
    x = positions(grid, **options("position_embedding"))(x)
    if getattr(pool, "uses_class_token", False):
        x = ClassToken(name="class_token", dtype=dtype)(x)
    if register_tokens:
        x = RegisterTokens(register_tokens, **options("register_tokens"))(x)
    if norm_before_blocks:
        x = layer_norm("embedding_norm", norm_epsilon, dtype)(x)
    is_random = dropout or stochastic_depth
    masks = (noise.MaskSeed(seed=seed, name="mask_seed")(images),) if is_random else ()
    if dropout:
        x = noise.Dropout(dropout, **options("dropout"))(x, *masks)
    for number, recomputed in enumerate(recomputed_parts(rematerialize, shape.depth)):
        block = BlockOptions(
            dropout=dropout,
            stochastic_depth=stochastic_depth * number / max(shape.depth - 1, 1),
            rematerialize=recomputed,
            attention_chunk=attention_chunk,
            approximate_gelu=approximate_gelu,
            norm_epsilon=norm_epsilon,
            layer_scale=layer_scale,
            qk_norm=qk_norm,
        )
        name_and_seed = options(f"block_{number:02d}")
        x = EncoderBlock(shape.heads, shape.mlp_width, block, **name_and_seed)(
            x, *masks
        )
    if register_tokens:
        x = DropRegisters(register_tokens, name="drop_registers", dtype=dtype)(x)
    norm = layer_norm("encoder_norm", norm_epsilon, dtype)
    x = _pool_tokens(x, norm, pool, norm_after_pooling)
    x = _pre_logits(representation_width, noise.seed_for(seed, "pre_logits"))(x)
    x = x if classes is None else _classifier(classes, head_bias)(x)
    sources = keras.utils.get_source_inputs(images)
    return keras.Model(sources[0] if len(sources) == 1 else sources, x, name=name)


def outputs_at(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """Return a model that shares `model`'s layers and outputs a dict by layer name.

    Args:
        model: A model built by `vit`, or any functional model.
        names: Names of layers, such as "pre_logits" (the features used in few-shot
            evaluation), "encoder_norm" (tokens) or "block_03".

    Raises:
        ValueError: The model has no layer of one of the names.
    """
    known = [layer.name for layer in model.layers]
    for name in names:
        check_known("names", name, known)
    return keras.Model(
        model.input,
        {name: model.get_layer(name).output for name in names},
        name=f"{model.name}_outputs",
    )


def _images(
    image_size: int | tuple[int, int], channels: int, tensor: Any
) -> keras.KerasTensor:
    """Return the input called "images", or the given tensor."""
    if tensor is not None:
        return tensor
    sides = image_size if isinstance(image_size, tuple | list) else (image_size,) * 2
    return keras.Input((*sides, channels), name="images", dtype="float32")


def _pool_tokens(
    x: Any, norm: keras.layers.Layer, pool: keras.layers.Layer | None, norm_last: bool
) -> Any:
    """Normalise and pool the tokens, in this order unless `norm_last`."""
    if pool is None:
        return norm(x)  # (batch, tokens, width)
    return norm(pool(x)) if norm_last else pool(norm(x))  # (batch, width)


def _pre_logits(width: int | None, seed: int) -> keras.layers.Layer:
    """Return the layer whose output is the model's features, always float32."""
    if width is None:
        return keras.layers.Identity(dtype="float32", name="pre_logits")
    return keras.layers.Dense(
        width,
        activation="tanh",
        kernel_initializer=keras.initializers.LecunNormal(seed=seed),
        dtype="float32",
        name="pre_logits",
    )


def _classifier(classes: int, bias: float) -> keras.layers.Layer:
    """Return the last dense layer, with a zero kernel and a constant bias."""
    return keras.layers.Dense(
        classes,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(bias),
        dtype="float32",  # In bfloat16 a bias of -10 leaves steps of 0.06.
        name="head",
    )


def _check_order(norm_after_pooling: bool, head: Any) -> None:
    if norm_after_pooling and head != "gap":
        raise ValueError(
            f"`norm_after_pooling` requires head='gap'; received head={head!r}."
        )


def _check_whole_patches(patch: int, sides: tuple[int, int], crop: bool) -> None:
    if not crop and any(side % patch for side in sides):
        nearest = [max(1, round(side / patch)) * patch for side in sides]
        raise ValueError(
            f"`image_size` must be a multiple of the patch, {patch} pixels; received "
            f"{sides}. Use {nearest[0]} x {nearest[1]}, or bind "
            "`crop_to_patches` = True to ignore the pixels at the edge."
        )
