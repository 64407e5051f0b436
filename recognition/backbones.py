"""Well-known networks of torchvision and timm: those that a form offers by name. Any other of them works too."""

from __future__ import annotations

TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "densenet121", "vgg16_bn", "mobilenet_v3_small",
    "mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_800mf",
    "convnext_tiny", "convnext_small", "swin_t", "vit_b_16", "maxvit_t", "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large", "deeplabv3_resnet50", "maskrcnn_resnet50_fpn_v2",
)  # fmt: skip
TIMM = (
    "resnet18", "resnet50", "seresnet50", "resnetv2_50", "mobilenetv3_small_100", "mobilenetv4_conv_small",
    "efficientnet_b0", "tf_efficientnetv2_s", "regnety_008", "ghostnet_100", "convnext_atto", "convnextv2_nano",
    "convnextv2_tiny", "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224",
    "vit_small_patch14_dinov2", "deit3_small_patch16_224", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224",
    "mixer_b16_224", "edgenext_small", "mobilevit_s",
)  # fmt: skip

WELL_KNOWN: tuple[str, ...] = (
    *(f"torchvision/{name}" for name in TORCHVISION),
    *(f"timm/{name}" for name in TIMM),
)
"""As ``model.network`` names them."""
