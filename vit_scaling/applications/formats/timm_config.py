"""timm's config.json: which function is computed, where no array shows it."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import ReadOptions

# The models of timm 1.0.31's vision_transformer.py with act_layer="gelu_tanh"; its
# others with GELU, most of its SigLIP models too, compute it by erf.
TANH_GELU = re.compile(
    r"vit_base_patch32_siglip(_gap)?_256"
    r"|vit_large_patch16_siglip(_gap)?_512"
    r"|vit_so400m_patch16_siglip(_gap)?_(256|384|512)"
    r"|vit_giantopt_patch16_siglip(_gap)?_(256|384)"
)
# Models of that file whose arrays have the plain names but compute differently.
UNSUPPORTED = {
    "vit_base_patch16_rpn_224": "norms after attention and MLP (ResPostBlock)",
    "test_vit3": "a pooling head that reads the registers too (pool_include_prefix)",
}
POOLS = ("token", "avg", "map", "")
# Arguments of timm's class that the arrays show, or that do not change the outputs.
HARMLESS = re.compile(
    r"img_size|patch_size|in_chans|num_classes|global_pool|embed_dim|depth|num_heads"
    r"|mlp_ratio|(qkv|proj)_bias|qk_norm|init_values|class_token|pos_embed"
    r"|no_embed_class|reg_tokens|(pre|final|fc)_norm|dynamic_img_(size|pad)|act_layer"
    r"|.*drop.*_rate|drop_rate|weight_init|fix_init"
)


@dataclasses.dataclass(frozen=True)
class TimmConfig:
    """A timm model's config.json on the hub, or {}, next to the caller's options.

    Attributes:
        config: `architecture`, `model_args` and `global_pool` are read.
        options: The caller's options, which come first.
        source: The arrays; its `assumed` records what neither of the two states.
    """

    config: Mapping[str, Any]
    options: ReadOptions
    source: SourceArrays

    @property
    def architecture(self) -> str:
        """Name of timm's model without its tag, or ""."""
        return str(self.config.get("architecture") or "").partition(".")[0]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of timm's class that the configuration adds."""
        return self.config.get("model_args") or {}

    @property
    def pooling(self) -> str | None:
        """The pooling; that of the arguments takes precedence."""
        return self.arguments.get("global_pool", self.config.get("global_pool"))

    def check_computation(self) -> None:
        """Raise if the model computes differently with a plain ViT's arrays."""
        name = self.architecture
        reasons = [f"{UNSUPPORTED[name]} ({name!r})"] if name in UNSUPPORTED else []
        reasons += [
            f"{key}={value!r}"
            for key, value in self.arguments.items()
            if value and not HARMLESS.fullmatch(key)
        ]
        if self.pooling not in (None, *POOLS):
            reasons.append(f"global_pool={self.pooling!r}")
        if reasons:
            raise ValueError(
                f"The model's config.json specifies {', '.join(reasons)}, which is not "
                "supported. This package's ViT has norms before attention and MLP, and "
                "heads that read the class token, or pool the patches by average or "
                "attention."
            )
        if not name:
            self.source.assumed.append(
                "plain blocks, with norms before attention and MLP, and pooling of the "
                "patches alone: timm's *_rpn_* and pool_include_prefix have the same "
                "arrays. The hub's config.json in the file's folder shows which it is."
            )

    def find_head(self, norm_after_pooling: bool) -> str:
        """Return the head of timm's model, noting if only a class token shows it."""
        if "attn_pool.latent" in self.source.arrays:
            return "map"
        if "cls_token" not in self.source.arrays or norm_after_pooling:
            return "gap"
        known = self.pooling is not None or self.architecture or self.options.head
        if not known:
            self.source.assumed.append(
                "head 'token', since there is a class token; a model with "
                "global_pool='avg' and fc_norm=False has the same arrays. Set `head` "
                "(--head=gap) or provide the hub's config.json to change it."
            )
        return "gap" if self.pooling == "avg" else "token"

    def uses_tanh_gelu(self, head: str) -> bool:
        """Whether timm's model approximates GELU by tanh; notes an assumption.

        Raises:
            ValueError: The model does not compute GELU, and the caller did not choose.
        """
        if self.options.approximate_gelu is not None:
            return self.options.approximate_gelu
        name, activation = self.architecture, self.arguments.get("act_layer")
        if activation is None and not name:
            self.source.assumed.append(
                "GELU by tanh, as in the authors' SigLIP; some of timm's models with a "
                "pooling head compute it by erf. Set `approximate_gelu` (--gelu=erf) "
                "or provide the hub's config.json to change it."
                if head == "map"
                else "GELU by erf, timm's default; its SigLIP models without a pooling "
                "head may compute it by tanh. Set `approximate_gelu` (--gelu=tanh) or "
                "provide the hub's config.json to change it."
            )
            return head == "map"
        if activation is None and "quickgelu" in name:
            activation = "quick_gelu"
        elif activation is None:
            activation = "gelu_tanh" if TANH_GELU.fullmatch(name) else "gelu"
        if activation not in ("gelu", "gelu_tanh"):
            raise ValueError(
                f"timm's {name!r} computes {activation!r}; this package's ViT computes "
                "GELU. Set `approximate_gelu` (--gelu) to use GELU nevertheless; the "
                "outputs will differ from timm's."
            )
        return activation == "gelu_tanh"

    def note_epsilon(self) -> None:
        """Note that timm's default epsilon is assumed if nothing specifies another."""
        if self.options.norm_epsilon is None and not self.architecture:
            self.source.assumed.append(
                "epsilon 1e-6 in all norms, timm's default. Set `norm_epsilon` "
                "(--norm_epsilon) to change it."
            )
