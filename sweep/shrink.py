"""Shrinking: from a library's default configuration to one of a few thousand weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

VOCABULARY = 128

LEAST: tuple[tuple[str, int], ...] = (
    (r"type_vocab|vocab_offset|vocab_size_per|codec.*vocab", 0),
    (r"vocab_size|^n_words$|num_embeddings$|codebook_size|audio_vocab", VOCABULARY),
    (r"experts_per_tok|moe_k$|top_?k|topk|n_group$|num_(shared|zero)_experts|n_shared", 2),
    (r"num.*experts$|n_routed_experts|num_experts", 4),
    (r"dense_replace|decoder_sparse_step|num_dense_layers|_layers_(offset|index)", 1),
    (r"(kv|key_value)_heads|num_key_heads|num_kv|n_groups$|num_key_value|kv_n_heads", 2),
    (r"heads?$|n_head|attention_heads", 4),
    (r"nope_head_dim|rope_head_dim|head_(dim|size)|^d_kv$|kv_channels|v_head_dim|head_width", 8),
    (r"layerdrop|layer_(norm|scale)|kernel|stride|_prob|dropout|ratio|_factor|_every|freq", 0),
    (r"(hidden|encoder|decoder|transformer|block|attn|n|num)_?(hidden_)?layers?$|^depth$", 2),
    (r"layers$|num_blocks|n_layer|_depth$|num_stages_", 2),
    (r"intermediate|ffn|^d_ff|n_inner|feed_?forward|mlp_(dim|hidden|channel)|^ff_|_ff_", 64),
    (r"lora_rank|_rank$|dt_rank|bottleneck|state_size|ssm_state", 8),
    (r"max_.*positions?(_embeddings)?$|n_positions|n_ctx|max_(seq|sequence|target|source)", 64),
    (r"image_size|^img_size|crop_size|input_size$|resolution$", 32),
    (r"patch_size|^patch$", 8),
    (r"num_frames|frames_per_clip", 4),
    (r"chunk_size$|window(_size)?$|sliding_window", 8),
    (r"hidden_(size|dim|channels)|d_model|n_embd|embed(ding)?_(dim|size)|embedding_(dim|size)", 32),
    (r"^dim$|model_dim|width$|projection|proj_size|_dim$|^n_embed|d_embed|num_features$", 32),
    (r"conv_channels|channels$|num_conv_pos_embedding", 0),
)
"""What a field of such a name may be at most; 0 leaves it. The first match decides."""

SPECIAL = {"pad": 0, "bos": 1, "eos": 2, "decoder_start": 1, "cls": 1, "sep": 2, "unk": 3}


def shrunk(config_class: type, overrides: Mapping[str, Any] | None = None) -> Any:
    """A small configuration of a class of transformers.

    Args:
        config_class: a dataclass of sizes; inner configurations are shrunk likewise.
        overrides: fields that the rules get wrong; nested for inner configurations.
    """
    given = dict(overrides or {})
    fields: dict[str, Any] = {}
    inner = getattr(config_class, "sub_configs", {})
    default = config_class() if inner else None
    for name in inner:
        part = getattr(default, name, None)
        extra = given.pop(name, {})
        if part is None and not extra:
            continue
        if isinstance(part, dict) or part is None:
            continue
        small = shrunk(type(part), {**_special(part), **extra})
        fields[name] = small.to_dict()
    for field in dataclasses.fields(config_class):
        if field.name in inner or field.default is dataclasses.MISSING:
            continue
        value = smaller(field.name, field.default)
        if value is not field.default:
            fields[field.name] = value
    if _field(config_class, "num_attention_heads") == _field(config_class, "num_key_value_heads"):
        fields.pop("num_key_value_heads", None)
        if "num_attention_heads" in fields:
            fields["num_key_value_heads"] = fields["num_attention_heads"]
    fields.update(given)
    known = {field.name for field in dataclasses.fields(config_class)}
    for name, value in {"use_cache": False, "dtype": "float32"}.items():
        if name in known:
            fields[name] = value
    return config_class(**fields)


def _field(config_class: type, name: str) -> Any:
    return next((f.default for f in dataclasses.fields(config_class) if f.name == name), None)


def _special(part: Any) -> dict[str, Any]:
    """Fields without which an inner configuration loses what the outer one gave it."""
    kept = ("is_decoder", "add_cross_attention", "is_encoder_decoder", "use_timm_backbone")
    known = {field.name for field in dataclasses.fields(part)}
    return {name: getattr(part, name) for name in kept if name in known}


def smaller(name: str, value: Any) -> Any:
    """A smaller value for a field, or the very value where it is small or no size."""
    if isinstance(value, bool):
        return value
    if name.endswith(("_token_id", "_token_index", "_token_ids")):
        return _token(name, value)
    if isinstance(value, int):
        least = limit(name)
        return least if least and value > least else value
    if isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
        return _list(name, value)
    return value


def limit(name: str) -> int:
    """The largest value that a field of this name may have; 0 where anything goes."""
    return next((least for pattern, least in LEAST if re.search(pattern, name)), 0)


def _token(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_token(name, item) for item in value[:1]]
    if not isinstance(value, int) or value < 0:
        return value
    for word, number in SPECIAL.items():
        if name.startswith(word + "_"):
            return number
    return value if value < 8 else 8 + sum(map(ord, name)) % (VOCABULARY - 16)


def _list(name: str, value: Any) -> Any:
    if re.search(r"image_size|img_size|resolution", name):
        return type(value)(min(item, 32) for item in value)
    if re.search(r"depth|num_(layers|blocks)|layer_nums", name):
        return type(value)(min(item, 2 if number == 2 else 1) for number, item in enumerate(value))
    if re.search(r"heads", name):
        return type(value)(max(1, item // max(1, min(value))) for item in value)
    if re.search(r"dims?$|hidden_sizes|embed|channels|sizes|width", name) and min(value) > 16:
        return type(value)(max(8, item * 16 // min(value) // 8 * 8) for item in value)
    return value
