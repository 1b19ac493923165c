"""What the general rules get wrong, family by family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sweep.examples import Maker, floats, frames, ids, padded
from sweep.shrink import VOCABULARY

SKIPPED: dict[str, str] = {
    "encoder_decoder": "a frame around two other families",
    "speech_encoder_decoder": "a frame around two other families",
    "vision_encoder_decoder": "a frame around two other families",
    "timm_wrapper": "a frame around timm, which is tried itself",
    "shieldgemma2": "a frame around gemma3",
    "perceiver": "its classifier reads images of 50,176 pixels only",
}
"""Families that are none of their own, or none of a small size, and why."""

_SWIN = {"window_size": 2, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "embed_dim": 16}
_EFFICIENT = {
    "width_coefficient": 0.25,
    "depth_coefficient": 0.25,
    "hidden_dim": 320,
    "image_size": 64,
}
_SERIES = {
    "prediction_length": 4,
    "context_length": 8,
    "lags_sequence": [1, 2],
    "num_time_features": 1,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "align": {"vision_config": _EFFICIENT, "projection_dim": 80},
    "audio_spectrogram_transformer": {"max_length": 64, "num_mel_bins": 32},
    "autoformer": _SERIES,
    "bit": {"num_groups": 4},
    "bros": {"hidden_size": 64},
    "codegen": {"rotary_dim": 4},
    "cvt": {"depth": [1, 2, 3]},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "donut": _SWIN,
    "efficientnet": _EFFICIENT,
    "ernie4_5_moe": {"moe_k": 2},
    # it scales by how many ids are masks, which the reference by embeddings cannot see
    "esm": {
        "vocab_size": VOCABULARY,
        "mask_token_id": 4,
        "pad_token_id": 0,
        "token_dropout": False,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "hgnet_v2": {
        "stem_channels": [3, 16, 24],
        "stage_in_channels": [24, 32, 64, 128],
        "stage_mid_channels": [8, 16, 24, 32],
        "stage_out_channels": [32, 64, 128, 256],
        "hidden_sizes": [32, 64, 128, 256],
        "image_size": 64,
    },
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "informer": _SERIES,
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "visual_embed": False},
    "levit": {"image_size": 64, "patch_size": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "mimi": {"upsample_groups": 32},
    "mobilevit": {"image_size": 64},  # on a smaller image its output is constant
    "mobilevitv2": {"image_size": 128},
    "nemotron": {"head_dim": 8},
    "neomme": {"head_dim": 16},
    "owlv2": {"text_config": {"max_position_embeddings": 64}},
    "owlvit": {"text_config": {"max_position_embeddings": 64}},
    "reformer": {
        "axial_pos_embds_dim": [8, 24],
        "axial_pos_shape": [8, 8],
        "is_decoder": True,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
    },
    "swin": _SWIN,
    "textnet": {"stem_out_channels": 16, "hidden_sizes": [16, 16, 32, 32, 64], "image_size": 64},
    "time_series_transformer": _SERIES,
    "vjepa2": {"crop_size": 32, "frames_per_clip": 4, "patch_size": 8, "pred_hidden_size": 32},
}
"""Fields of configurations."""


def _boxes(model: nn.Module, config: Any) -> dict[str, Maker]:
    def boxes(batch: int, length: int) -> torch.Tensor:
        corners = torch.arange(batch * length * 4).reshape(batch, length, 4) % 5
        return corners.float() / 10 + torch.tensor([0.0, 0.0, 0.5, 0.5])

    return {"input_ids": ids(config.vocab_size), "attention_mask": padded, "bbox": boxes}


def _spectrogram(model: nn.Module, config: Any) -> dict[str, Maker]:
    return {"input_values": floats(config.max_length, config.num_mel_bins)}


def _waves(model: nn.Module, config: Any) -> dict[str, Maker]:
    return {"input_values": lambda batch, length: floats(1, 640 * length)(batch, length)}


def _series(model: nn.Module, config: Any) -> dict[str, Maker]:
    past = config.context_length + max(config.lags_sequence)
    return {
        "past_values": floats(past),
        "past_time_features": floats(past, 1),
        "past_observed_mask": lambda batch, length: torch.ones(batch, past),
        "future_values": floats(config.prediction_length),
        "future_time_features": floats(config.prediction_length, 1),
    }


def _decisions(model: nn.Module, config: Any) -> dict[str, Maker]:
    return {
        "states": frames(config.state_dim),
        "actions": frames(config.act_dim),
        "rewards": frames(1),
        "returns_to_go": frames(1),
        "timesteps": lambda batch, length: torch.arange(length).repeat(batch, 1),
        "attention_mask": padded,
    }


def _regions(model: nn.Module, config: Any) -> dict[str, Maker]:
    return {
        "input_ids": ids(config.vocab_size),
        "attention_mask": padded,
        "visual_feats": floats(6, config.visual_feat_dim),
        "visual_pos": floats(6, config.visual_pos_dim),
    }


def _features(model: nn.Module, config: Any) -> dict[str, Maker]:
    return {
        "input_features": floats(96, config.input_feat_per_channel),
        "decoder_input_ids": ids(config.vocab_size),
    }


def _contexts(model: nn.Module, config: Any) -> dict[str, Maker]:
    return {"past_values": floats(config.context_length)}


def _patches(model: nn.Module, config: Any) -> dict[str, Maker]:
    vision = config.vision_config
    return {
        "input_ids": ids(config.text_config.vocab_size),
        "pixel_values": floats(16, vision.num_channels * vision.patch_size**2),
        "pixel_attention_mask": lambda batch, length: torch.ones(batch, 16, dtype=torch.int64),
        "spatial_shapes": lambda batch, length: torch.full((batch, 2), 4),
    }


INPUTS: dict[str, Callable[[nn.Module, Any], dict[str, Maker]]] = {
    "audio_spectrogram_transformer": _spectrogram,
    "autoformer": _series,
    "bros": _boxes,
    "dac": _waves,
    "decision_transformer": _decisions,
    "encodec": _waves,
    "informer": _series,
    "lxmert": _regions,
    "mimi": _waves,
    "siglip2": _patches,
    "speech_to_text": _features,
    "time_series_transformer": _series,
    "timesfm": _contexts,
    "timesfm2_5": _contexts,
    "xcodec": _waves,
}
"""Inputs of models."""
