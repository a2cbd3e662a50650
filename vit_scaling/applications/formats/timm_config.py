"""What no array of timm's shows: its config.json says which function is computed."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping
from typing import Any

from vit_scaling.applications.formats.source import Request, Source

# The models of timm 1.0.31's vision_transformer.py with act_layer="gelu_tanh"; its
# others with GELU compute erf's, most of its SigLIP models too.
TANH_GELU = re.compile(
    r"vit_base_patch32_siglip(_gap)?_256"
    r"|vit_large_patch16_siglip(_gap)?_512"
    r"|vit_so400m_patch16_siglip(_gap)?_(256|384|512)"
    r"|vit_giantopt_patch16_siglip(_gap)?_(256|384)"
)
# Those of that file whose arrays have the plain names, but which compute otherwise.
OTHERWISE = {
    "vit_base_patch16_rpn_224": "norms behind attention and MLP (ResPostBlock)",
    "test_vit3": "a pooling head that reads the registers too (pool_include_prefix)",
}
POOLS = ("token", "avg", "map", "")
# Arguments of timm's class that the arrays show, or that change nothing of the outputs.
SHOWN = re.compile(
    r"img_size|patch_size|in_chans|num_classes|global_pool|embed_dim|depth|num_heads"
    r"|mlp_ratio|(qkv|proj)_bias|qk_norm|init_values|class_token|pos_embed"
    r"|no_embed_class|reg_tokens|(pre|final|fc)_norm|dynamic_img_(size|pad)|act_layer"
    r"|.*drop.*_rate|drop_rate|weight_init|fix_init"
)


def architecture(config: Mapping[str, Any]) -> str:
    """Return the name of timm's model without its tag, or ""."""
    return str(config.get("architecture") or "").partition(".")[0]


def model_args(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments that the configuration gives beside the architecture."""
    return config.get("model_args") or {}


def pooling(config: Mapping[str, Any]) -> str | None:
    """Return the pooling: the arguments' own comes before the architecture's."""
    return model_args(config).get("global_pool", config.get("global_pool"))


def check_blocks_and_pool(source: Source, config: Mapping[str, Any]) -> None:
    """Refuse models whose arrays look like a plain ViT's; note it if nothing is said.

    Raises:
        ValueError: The architecture, an argument or the pooling is of another model.
    """
    name, arguments = architecture(config), model_args(config)
    other = OTHERWISE.get(name)
    told = [
        f"{key}={value!r}"
        for key, value in arguments.items()
        if value and not SHOWN.fullmatch(key)
    ]
    pool = pooling(config)
    if pool is not None and pool not in POOLS:
        told.append(f"global_pool={pool!r}")
    if other or told:
        raise ValueError(
            f"The config.json beside the file names {other or ', '.join(told)}"
            f"{f' by its architecture {name!r}' if other else ''}, which this "
            "package's ViT does not have: norms stand before attention and MLP, and "
            "heads read the class token, or the average or attention pool of the "
            "patches. With the same arrays its outputs would differ."
        )
    if not name:
        source.assumed.append(
            "plain blocks, with norms before attention and MLP, and pooling of the "
            "patches alone: timm's *_rpn_* and pool_include_prefix have the same "
            "arrays. The hub's config.json beside the file says which."
        )


def head_of(
    source: Source, after: bool, config: Mapping[str, Any], request: Request
) -> str:
    """Return the head of timm's model; note where only the class token speaks for it.

    Args:
        source: The arrays.
        after: Whether the last norm is of the average.
        config: The hub's config.json, or {}.
        request: What the caller says.
    """
    if "map/latent" in source.arrays:
        return "map"
    if "cls" not in source.arrays or after:
        return "gap"
    pool = pooling(config)
    if pool is None and not architecture(config) and request.head is None:
        source.assumed.append(
            "head 'token', since there is a class token; a model with "
            "global_pool='avg' and fc_norm=False has the same arrays. `head` "
            "(--head=gap) or the hub's config.json says otherwise."
        )
    return "gap" if pool == "avg" else "token"


def approximate_gelu(
    source: Source, head: str, config: Mapping[str, Any], request: Request
) -> bool:
    """Return whether timm's model computes GELU by tanh; note what is assumed.

    Raises:
        ValueError: It computes no GELU, and the caller does not say which to take.
    """
    if request.approximate_gelu is not None:
        return request.approximate_gelu
    name, told = architecture(config), model_args(config).get("act_layer")
    if told is None and not name:
        source.assumed.append(
            "GELU by tanh, as the authors' SigLIP has it; some of timm's models with a "
            "pooling head compute erf's. `approximate_gelu` (--gelu=erf) says "
            "otherwise, and so does the hub's config.json beside the file."
            if head == "map"
            else "GELU by erf, timm's default; its SigLIP models without a pooling "
            "head may compute tanh's. `approximate_gelu` (--gelu=tanh) says otherwise, "
            "and so does the hub's config.json beside the file."
        )
        return head == "map"
    known = "gelu_tanh" if TANH_GELU.fullmatch(name) else "gelu"
    act = told or ("quick_gelu" if "quickgelu" in name else known)
    if act not in ("gelu", "gelu_tanh"):
        raise ValueError(
            f"timm's {name!r} computes {act!r}; this package's ViT computes "
            "GELU. `approximate_gelu` (--gelu) takes the weights with GELU all the "
            "same; the outputs are then not the source's."
        )
    return act == "gelu_tanh"


def note_epsilon(source: Source, config: Mapping[str, Any], request: Request) -> None:
    """Note that timm's default epsilon is taken where nothing says otherwise."""
    if request.norm_epsilon is None and not architecture(config):
        source.assumed.append(
            "epsilon 1e-6 in all norms, timm's default; `norm_epsilon` "
            "(--norm_epsilon) says otherwise."
        )
