"""timm's config.json: which function is computed, where no array shows it."""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import functools
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

from vit_scaling.applications.formats.config_keys import check_keys
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.applications.formats.vit_weights import ReadOptions

OWN_ARCHITECTURE = "vit_scaling"  # In files that this package wrote.
POOLS = ("token", "avg", "map", "")
# Arguments of timm's class that are read, that the arrays show, or that do not change
# the outputs.
KNOWN_ARGUMENTS = re.compile(
    r"img_size|patch_size|in_chans|num_classes|global_pool|embed_dim|depth|num_heads"
    r"|mlp_ratio|(qkv|proj)_bias|qk_norm|init_values|class_token|pos_embed"
    r"|no_embed_class|reg_tokens|(pre|final|fc)_norm|dynamic_img_(size|pad)|act_layer"
    r"|.*drop.*_rate|drop_rate|weight_init|fix_init"
)
KNOWN_KEYS = frozenset({
    # Read here, or for the preprocessing.
    "architecture", "global_pool", "model_args", "pretrained_cfg", "input_size",
    "interpolation", "crop_pct", "crop_mode", "mean", "std", "label_names",
    # The arrays show them, or they describe the file.
    "num_classes", "num_features", "label_descriptions", "label_offset", "url", "file",
    "hf_hub_id", "hf_hub_filename", "source", "tag", "custom_load", "state_dict",
    "test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct",
    "pool_size", "test_pool_size", "first_conv", "classifier", "license",
    "description", "origin_url", "paper_name", "paper_ids", "notes",
})  # fmt: skip


class TimmModel(NamedTuple):
    """A row of timm_models.csv: what timm's registry says of an architecture.

    Attributes:
        heads: Attention heads.
        gelu: "gelu", "gelu_tanh" or another function of the MLP.
        epsilon: Epsilon of the norms.
        pool: timm's `global_pool`.
        differs: The parts in which it differs from a plain ViT; "" for a plain one.
    """

    heads: int | None
    gelu: str
    epsilon: float | None
    pool: str
    differs: str


@functools.cache
def timm_models() -> dict[str, TimmModel]:
    """Return every ViT in the registry of timm 1.0.31 by its architecture's name."""
    file = resources.files("vit_scaling.applications.formats") / "timm_models.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {
        row["architecture"]: TimmModel(
            int(row["heads"]) if row["heads"] else None,
            row["gelu"],
            float(row["epsilon"]) if row["epsilon"] else None,
            row["pool"],
            row["differs"],
        )
        for row in rows
    }


@dataclasses.dataclass(frozen=True)
class TimmConfig:
    """A timm model's config.json on the hub, or {}, next to the caller's options.

    Attributes:
        config: `architecture`, `model_args`, `global_pool` and the image size of
            `pretrained_cfg` are read.
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
    def registered(self) -> TimmModel | None:
        """The architecture's row of the table, if it has one."""
        return timm_models().get(self.architecture)

    @property
    def is_known(self) -> bool:
        """Whether the architecture defines what the arrays do not show."""
        return self.registered is not None or self.architecture == OWN_ARCHITECTURE

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of timm's class that the configuration adds."""
        return self.config.get("model_args") or {}

    @property
    def pooling(self) -> str | None:
        """The pooling: of the arguments, else of the file, else the architecture's."""
        default = self.registered.pool if self.registered else None
        stated = self.config.get("global_pool", default)
        return self.arguments.get("global_pool", stated)

    @property
    def heads(self) -> int | None:
        """Attention heads that the arguments or the architecture define."""
        default = self.registered.heads if self.registered else None
        return self.arguments.get("num_heads", default)

    @property
    def image_size(self) -> int | tuple[int, int] | None:
        """Pixels, side or (height, width), that the positions are for."""
        size = self.options.source_image_size or self.arguments.get("img_size")
        known = self.config.get("pretrained_cfg") or self.config
        if size is None and known.get("input_size"):
            size = known["input_size"][1:]
        return tuple(size) if isinstance(size, list | tuple) else size

    def check_computation(self) -> None:
        """Raise if the model computes differently with a plain ViT's arrays."""
        known = self.config.get("pretrained_cfg") or {}
        check_keys(self.config, KNOWN_KEYS, "The model's config.json")
        check_keys(known, KNOWN_KEYS, "`pretrained_cfg` in the model's config.json")
        differs = self.registered.differs if self.registered else ""
        reasons = [f"{self.architecture!r}, a model with {differs}"] if differs else []
        reasons += [
            f"{key}={value!r}"
            for key, value in self.arguments.items()
            if value and not KNOWN_ARGUMENTS.fullmatch(key)
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
        if not self.is_known:
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
        known = self.pooling is not None or self.is_known or self.options.head
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
        activation = self.arguments.get("act_layer")
        if activation is None and self.registered:
            activation = self.registered.gelu
        if activation is None:
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
        if activation not in ("gelu", "gelu_tanh"):
            raise ValueError(
                f"timm's {self.architecture!r} computes {activation!r}; this package's "
                "ViT computes GELU. Set `approximate_gelu` (--gelu) to use GELU "
                "nevertheless; the outputs will differ from timm's."
            )
        return activation == "gelu_tanh"

    def find_epsilon(self) -> float:
        """Return the norms' epsilon, timm's default if nothing specifies it."""
        if self.registered and self.registered.epsilon:
            return self.registered.epsilon
        if self.options.norm_epsilon is None and not self.is_known:
            self.source.assumed.append(
                "epsilon 1e-6 in all norms, timm's default. Set `norm_epsilon` "
                "(--norm_epsilon) to change it."
            )
        return 1e-6
