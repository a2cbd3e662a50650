"""transformers' config.json: which models are plain ViTs, and what its keys mean."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats.config_keys import check_keys
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.modeling.shapes import ViTShape

Config = Mapping[str, Any]
# Names of the layouts.
VIT, SIGLIP, CLIP = "huggingface_vit", "huggingface_siglip", "huggingface_clip"

# transformers' names of GELU; any other name is another function.
ERF_GELU = ("gelu", "gelu_python")
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_accurate", "gelu_fast")

# From `model_type` to the norms' epsilon where the configuration has none.
PLAIN_MODELS = {
    "vit": 1e-12,
    "vit_mae": 1e-12,
    "vit_msn": 1e-6,
    "deit": 1e-12,
    "ijepa": 1e-12,
    "dinov2": 1e-6,
    "dinov2_with_registers": 1e-6,
    "siglip": 1e-6,
    "siglip_vision_model": 1e-6,
    "clip": 1e-5,
    "clip_vision_model": 1e-5,
}
# From a layout to its default function of the MLP, and the model that it is of.
DEFAULT_ACTS = {VIT: "gelu", SIGLIP: "gelu_pytorch_tanh", CLIP: "quick_gelu"}
DEFAULT_MODELS = {VIT: "vit", SIGLIP: "siglip", CLIP: "clip"}
# From `model_type` to the part that a plain ViT lacks.
OTHER_MODELS = {
    "beit": "relative position biases (BEiT)",
    "data2vec-vision": "relative position biases (BEiT)",
    "convnext": "convolutions in place of attention",
    "convnextv2": "convolutions in place of attention",
    "dinov3_convnext": "convolutions in place of attention",
    "dinov3_vit": "rotary positions (RoPE)",
    "dpt": "a decoder over several blocks",
    "siglip2": "patches of any aspect ratio (NaFlex)",
    "siglip2_vision_model": "patches of any aspect ratio (NaFlex)",
    "swin": "attention in windows",
    "swinv2": "attention in windows",
    "vit_hybrid": "a convolutional network before the blocks",
    "yolos": "tokens of detections",
}
# Keys whose value must be the first, because no plain ViT computes another.
ONLY_VALUES = {"use_swiglu_ffn": (False, "SwiGLU"), "is_decoder": (False, "a decoder")}
KNOWN_KEYS = frozenset({
    # Read: by this module, for the preprocessing or for class names.
    "model_type", "vision_config", "num_attention_heads", "hidden_act", "pooler_act",
    "layer_norm_eps", "image_size", "id2label", "hidden_size", "num_hidden_layers",
    "patch_size", *ONLY_VALUES,
    # The arrays show them.
    "intermediate_size", "mlp_ratio", "num_channels", "qkv_bias", "layerscale_value",
    "num_register_tokens", "use_mask_token", "vision_use_head", "num_labels",
    "label2id", "pooler_output_size", "architectures",
    # Only in training, or of outputs that are not the image model's.
    "attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob",
    "dropout", "drop_path_rate", "initializer_range", "initializer_factor",
    "encoder_stride", "mask_ratio", "norm_pix_loss", "decoder_hidden_size",
    "decoder_intermediate_size", "decoder_num_attention_heads",
    "decoder_num_hidden_layers", "apply_layernorm", "out_features", "out_indices",
    "reshape_hidden_states", "stage_names", "projection_dim", "problem_type",
    # Of transformers' own bookkeeping, and of text generation.
    "add_cross_attention", "attn_implementation", "bad_words_ids",
    "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size",
    "eos_token_id", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "is_encoder_decoder",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "pad_token_id", "prefix", "pruned_heads",
    "remove_invalid_values", "repetition_penalty", "return_dict",
    "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "torchscript", "transformers_version", "typical_p", "use_bfloat16",
    "use_cache",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class HuggingFaceConfig:
    """The config.json of an image model, or {}, next to the caller's options.

    Attributes:
        config: The image model's part of the file.
        options: The caller's options, which come first.
        source: The arrays; its `assumed` records what neither of the two states.
    """

    config: Config
    options: ReadOptions
    source: SourceArrays

    def check_computation(self) -> None:
        """Raise ValueError if the configuration is of anything but a plain ViT."""
        check_keys(self.config, KNOWN_KEYS, "The model's config.json")
        for key, (value, part) in ONLY_VALUES.items():
            if self.config.get(key, value) != value:
                raise ValueError(
                    f"The model's config.json has {key}={self.config[key]!r}: {part}, "
                    "which this package's ViT lacks. Only models without it are "
                    "supported."
                )
        pooler = self.config.get("pooler_act", "tanh")
        if "pooler.dense.weight" in self.source.arrays and pooler != "tanh":
            raise ValueError(
                f"The model's config.json has pooler_act={pooler!r}; this package's "
                "layer before the classifier computes tanh. Leave the pooler out by "
                "ignore='pooler.*'."
            )

    def check_shape(self, shape: ViTShape) -> None:
        """Raise ValueError if the configuration's sizes are not those of the arrays."""
        keys = {"hidden_size": "width", "num_hidden_layers": "depth"}
        for key, name in {**keys, "patch_size": "patch"}.items():
            found = getattr(shape, name)
            if self.config.get(key, found) not in (found, [found, found]):
                raise ValueError(
                    f"The model's config.json has {key}={self.config[key]!r}, but the "
                    f"arrays have {found}. It is the configuration of another file."
                )

    @property
    def image_size(self) -> int | tuple[int, int] | None:
        """Pixels, side or (height, width), that the positions are for."""
        size = self.options.source_image_size or self.config.get("image_size")
        return tuple(size) if isinstance(size, list | tuple) else size

    def uses_tanh_gelu(self) -> bool:
        """Whether `hidden_act`, by default the model's, is GELU by tanh.

        Raises:
            ValueError: It is another function, and the caller did not choose.
        """
        activation = self.config.get("hidden_act", DEFAULT_ACTS[self.source.layout])
        known = (*ERF_GELU, *TANH_GELU)
        if self.options.approximate_gelu is None and activation not in known:
            raise ValueError(
                f"The model computes hidden_act={activation!r} (config.json); this "
                f"package's ViT computes GELU: {', '.join(known)}. Set "
                "`approximate_gelu` (--gelu) to use GELU nevertheless; the outputs "
                "will differ from the source's."
            )
        if not self.config and self.options.approximate_gelu is None:
            self.source.assumed.append(
                f"GELU by {'tanh' if activation in TANH_GELU else 'erf'}, this model's "
                "default in transformers. Set `approximate_gelu` (--gelu) or provide "
                "its config.json to change it."
            )
        return activation in TANH_GELU

    def epsilon(self) -> float:
        """Return the norms' epsilon, by default the model's; note it if assumed."""
        kind = self.config.get("model_type", DEFAULT_MODELS[self.source.layout])
        epsilon = self.config.get("layer_norm_eps", PLAIN_MODELS[kind])
        if not self.config and self.options.norm_epsilon is None:
            self.source.assumed.append(
                f"epsilon {epsilon:g} in all norms, this model's default in "
                "transformers. Set `norm_epsilon` (--norm_epsilon) or provide its "
                "config.json to change it."
            )
        return epsilon


def check_model_type(config: Config) -> None:
    """Raise ValueError, naming the part, if the model is not a plain ViT."""
    kind = config.get("model_type")
    if kind in OTHER_MODELS:
        activation = config.get("vision_config", config).get("hidden_act", "gelu")
        parts = [OTHER_MODELS[kind]]
        if activation not in (*ERF_GELU, *TANH_GELU):
            parts.append(f"another function than GELU ({activation})")
        raise ValueError(
            f"The model's config.json is of {kind!r}, which has {' and '.join(parts)}; "
            f"this package's ViT does not. Supported: {', '.join(PLAIN_MODELS)}."
        )
    if kind is not None and kind not in PLAIN_MODELS:
        raise ValueError(
            f"The model's config.json is of {kind!r}, which is not known to be a plain "
            f"ViT. Supported: {', '.join(PLAIN_MODELS)}."
        )
