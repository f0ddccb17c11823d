"""Small networks of every architecture that spandrel knows, with random weights."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvid_export.importers import spandrel


def _of(kind: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return kind, options


_LAYERS = {"depths": [2], "num_heads": [2]}
OPTIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ATD": _of("ATD", embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=8,
        category_size=256, num_tokens=8, reducted_dim=4, upscale=2,
        upsampler="pixelshuffledirect"),
    "AuraSR": _of("AuraSR", dim=8, image_size=None, input_image_size=None, init_dim=8,
        style_network={"dim_in": 8, "dim_out": 32, "depth": 2}, up_dim_mults=(1, 2, 4, 8, 16),
        down_dim_mults=(4, 8, 16), self_attn_dim_head=8, attn_depths=(1, 1, 1, 1, 1),
        mid_attn_depth=1, num_conv_kernels=2, unconditional=True, skip_connect_scale=0.4),
    "CRAFT": _of("CRAFT", embed_dim=32, depths=[2, 2], num_heads=[2, 2], upscale=2),
    "Compact": _of("Compact", num_feat=8, num_conv=2, upscale=2),
    "DAT": _of("DAT", embed_dim=32, split_size=[8, 8], depth=[2, 2], num_heads=[2, 2],
        expansion_factor=2.0, upscale=2),
    "DCTLSA": _of("DCTLSA", nf=10, upscale=2),
    "DITN": _of("DITN", dim=12, ITL_blocks=1, SAL_blocks=1, upscale=2),
    "DRCT": _of("DRCT", embed_dim=12, depths=(6,), num_heads=(2,), window_size=16, gc=8,
        upscale=2, upsampler="pixelshuffle"),
    "DRUNet": _of("DRUNet", in_nc=4, out_nc=3, nc=[8, 8, 16, 16], nb=2),
    "DnCNN": _of("DnCNN", in_nc=3, out_nc=3, nc=8, nb=8, act_mode="R"),
    "ESRGAN": _of("ESRGAN", num_filters=8, num_blocks=1, scale=2),
    "FBCNN": _of("FBCNN", nc=[8, 8, 16, 512], nb=2),
    "FDAT": _of("FDAT", scale=2, embed_dim=16, num_groups=1, depth_per_group=1, num_heads=2,
        mid_dim=8),
    "FFTformer": _of("FFTformer", dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1),
    "GFPGAN": _of("GFPGAN"),
    "GRL": _of("GRL", embed_dim=12, upscale=2, upsampler="pixelshuffle", depths=[2, 2],
        num_heads_window=[2, 2], num_heads_stripe=[2, 2], window_size=8, stripe_size=[16, 16],
        stripe_shift=True, mlp_ratio=2.0, anchor_window_down_factor=4),
    "HAT": _of("HAT", embed_dim=12, depths=(2,), num_heads=(2,), window_size=8,
        compress_ratio=3, squeeze_factor=4, mlp_ratio=2.0, upscale=2, num_feat=8),
    "HVICIDNet": _of("HVICIDNet", channels=[8, 8, 16, 16], heads=[1, 2, 2, 2]),
    "IPT": _of("IPT", patch_size=24, patch_dim=3, n_feats=4, scale=[2], num_layers=1),
    "KBNet": _of("KBNet_s", width=8, middle_blk_num=1, enc_blk_nums=[1, 1, 1, 1],
        dec_blk_nums=[1, 1, 1, 1]),
    "KBNet_l": _of("KBNet_l", dim=24, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1,
        heads=[1, 2, 2, 2]),
    "LaMa": _of("LaMa", in_nc=4, out_nc=3),
    "MMRealSR": _of("MMRealSR", num_in_ch=3, num_out_ch=3, scale=4, num_feat=8, num_block=1,
        num_grow_ch=4, num_feats=[8, 8, 8, 8], num_blocks=[1, 1, 1, 1]),
    "MixDehazeNet": _of("MixDehazeNet", embed_dims=[8, 8, 16, 8, 8]),
    "MoESR": _of("MoESR", scale=2, dim=8, n_blocks=1, n_block=1, upsample_dim=8),
    "MoSR": _of("MoSR", upscale=2, n_block=2, dim=16),
    "NAFNet": _of("NAFNet", width=8, middle_blk_num=1, enc_blk_nums=[1, 1],
        dec_blk_nums=[1, 1]),
    "OmniSR": _of("OmniSR", num_feat=16, block_num=1, res_num=1, up_scale=2),
    "PLKSR": _of("PLKSR", dim=16, n_blocks=2, upscaling_factor=2),
    "RealPLKSR": _of("RealPLKSR", dim=16, n_blocks=2, upscaling_factor=2, dysample=True),
    "RCAN": _of("RCAN", scale=2, n_resgroups=1, n_resblocks=1, n_feats=16),
    "RGT": _of("RGT", embed_dim=32, depth=[2, 2], num_heads=[2, 2], mlp_ratio=2.0, upscale=2),
    "RealCUGAN": _of("UpCunet2x"),
    "RealCUGAN_x3": _of("UpCunet3x"),
    "RealCUGAN_x4": _of("UpCunet4x", pro=True),
    "RealCUGAN_fast": _of("UpCunet2x_fast"),
    "RestoreFormer": _of("RestoreFormer", ch=32, n_embed=16, ch_mult=(1, 1, 1, 1, 1, 1),
        num_res_blocks=1),
    "RetinexFormer": _of("RetinexFormer", n_feat=8, stage=1),
    "SAFMN": _of("SAFMN", dim=8, n_blocks=2, upscaling_factor=2),
    "SAFMNBCIE": _of("SAFMNBCIE", dim=8, n_blocks=1, num_layers=2),
    "SCUNet": _of("SCUNet", config=[2, 1, 1, 2, 1, 1, 1], dim=64),
    "SPAN": _of("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2),
    "SeemoRe": _of("SeemoRe", scale=2, num_experts=3, num_layers=2, embedding_dim=12),
    "SwiftSRGAN": _of("SwiftSRGAN", num_channels=8, num_blocks=1, upscale_factor=2),
    "Swin2SR": _of("Swin2SR", embed_dim=12, **_LAYERS, window_size=8, mlp_ratio=2.0, upscale=2,
        upsampler="pixelshuffle"),
    "SwinIR": _of("SwinIR", embed_dim=12, **_LAYERS, window_size=8, mlp_ratio=2.0, upscale=2,
        upsampler="pixelshuffle"),
    "Uformer": _of("Uformer", embed_dim=8, depths=[1] * 9,
        num_heads=[1, 1, 2, 2, 2, 2, 2, 1, 1]),
}  # fmt: skip
"""By architecture, or a variant of one after `_`: the class and its arguments."""


def classes() -> dict[str, type[nn.Module]]:
    """The networks of the spandrel that is installed, by class."""
    with spandrel._torchvision():
        import spandrel as package
    found = {}
    for support in package.MAIN_REGISTRY.architectures():
        module = sys.modules[type(support.architecture).__module__]
        found |= {name: getattr(module, name) for name in module.__all__}
    return found


def architectures() -> list[str]:
    """The architectures of the spandrel that is installed."""
    with spandrel._torchvision():
        import spandrel as package
    return [support.architecture.id for support in package.MAIN_REGISTRY.architectures()]


def state(name: str) -> dict[str, Tensor]:
    """A state dict of a small network, without what is zero or one at the start."""
    kind, options = OPTIONS[name]
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = classes()[kind](**options)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.is_floating_point():
                weight += 0.02 * torch.randn(weight.shape)
    return {key: value.detach().clone() for key, value in network.state_dict().items()}
