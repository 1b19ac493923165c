"""Small architectures of model libraries, from configurations, with random weights."""

from __future__ import annotations

from typing import Any

from torch import nn


def torchvision_model(name: str, **options: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, **options)


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 3, 2, 32, 64, num_classes=10)


def timm_model(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            num_labels=5,
        )
    )


def deberta() -> nn.Module:
    """An encoder with a convolution beside its first layer."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config = DebertaV2Config(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        conv_kernel_size=3,
        conv_act="gelu",
    )
    return DebertaV2ForSequenceClassification(config).eval().requires_grad_(False)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=32, n_embd=32, n_layer=3, n_head=2)
    )


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32,
        )
    )


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            num_labels=10,
        )
    )


def clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    text = {
        **shape,
        "num_hidden_layers": 2,
        "vocab_size": 100,
        "max_position_embeddings": 16,
        "bos_token_id": 98,
        "eos_token_id": 99,
        "pad_token_id": 0,
    }
    vision = {**shape, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def wav2vec() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            conv_dim=(16, 16), conv_kernel=(4, 3), conv_stride=(3, 2), num_feat_extract_layers=2,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
        )
    )  # fmt: skip
