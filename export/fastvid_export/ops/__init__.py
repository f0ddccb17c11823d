"""The project's ops inside PyTorch: differentiable in training, `fastvid` nodes in an export.

Each is an operator `torch.ops.fastvid.X` that computes with the compiled op, on the tensor's own
memory, device and CUDA stream. They work under `torch.compile` and `torch.export`; pass
`custom_translation_table=onnx_translations()` to `torch.onnx.export` and each becomes one node.
"""

from fastvid_export.ops._library import onnx_translations
from fastvid_export.ops.attention import attention, qk_norm_rope
from fastvid_export.ops.frames import (
    downscale,
    luma_to_rgb,
    planar_to_rgb,
    rgb_to_luma,
    rgb_to_planar,
)
from fastvid_export.ops.noise import scheduler_step
from fastvid_export.ops.products import linear
from fastvid_export.ops.splatting import softmax_splat
from fastvid_export.ops.temporal import temporal_attention
from fastvid_export.ops.warping import inverse_search, warp, warp_blend

__all__ = [
    "attention",
    "downscale",
    "inverse_search",
    "linear",
    "luma_to_rgb",
    "onnx_translations",
    "planar_to_rgb",
    "qk_norm_rope",
    "rgb_to_luma",
    "rgb_to_planar",
    "scheduler_step",
    "softmax_splat",
    "temporal_attention",
    "warp",
    "warp_blend",
]
