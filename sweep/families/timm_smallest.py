"""The model of each family of timm that has the fewest weights, if its name is not the shortest."""

from __future__ import annotations

_PAIRS = """
byoanet:bat_resnext26ts byobnet:test_byobnet cait:cait_xxs24_224 coat:coat_tiny convit:convit_tiny
convnext:test_convnext cpubone:cpubone_nano crossvit:crossvit_tiny_240 cspnet:cs3darknet_s
cspnext:cspnext_tiny davit:davit_tiny deit:deit_tiny_patch16_224 dla:dla46x_c dpn:dpn48b
edgenext:edgenext_xx_small efficientformer_v2:efficientformerv2_s0 efficientnet:test_efficientnet
eva:eva02_tiny_patch14_224 fasternet:fasternet_t0 focalnet:focalnet_tiny_srf gcvit:gcvit_xxtiny
hardcorenas:hardcorenas_b hgnet:hgnetv2_b0 hiera:hiera_tiny_224 hieradet_sam2:sam2_hiera_tiny
hrnet:hrnet_w18_small iformer:iformer_t lcnetv2:lcnetv2_small levit:levit_128s
mambaout:test_mambaout metaformer:poolformerv2_s12 mlp_mixer:mixer_s32_224
mobilenetv3:mobilenetv3_small_050 mobilenetv5:mobilenetv5_base mobilevit:mobilevit_xxs
mvitv2:mvitv2_tiny naflexvit:naflexvit_base_patch16_parfac_gap nest:nest_tiny nextvit:nextvit_small
nfnet:test_nfnet pit:pit_ti_224 rdnet:rdnet_tiny regnet:regnetx_002 res2net:res2next50
resnet:test_resnet senet:legacy_seresnet18 sequencer:sequencer2d_s starnet:starnet_s050
swiftformer:swiftformer_xs swin_transformer:swin_tiny_patch4_window7_224
swin_transformer_v2:swinv2_tiny_window8_256 swin_transformer_v2_cr:swinv2_cr_tiny_224
tnt:tnt_s_legacy_patch16_224 tresnet:tresnet_m twins:twins_svt_small
vision_transformer_hybrid:vit_tiny_r_s16_p8_224 vision_transformer_sam:samvit_base_patch16_224
vitamin:vitamin_small_224 vovnet:ese_vovnet19b_slim_dw xception_aligned:xception41p
"""
SMALLEST = dict(pair.split(":") for pair in _PAIRS.split())
"""Module of timm.models to model. Of the mixers the plain one, not the smallest."""
