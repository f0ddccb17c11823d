"""The compiled ops: arrays in, arrays out, on all cores.

An array is one of NumPy, or any object that DLPack exchanges (`__dlpack__`: torch, CuPy, JAX,
onnxruntime's OrtValue), on the CPU or on a CUDA device; it is used where it lies, without a copy.
All arrays of a call must be on one device. On the CPU, `out=None` returns a new NumPy array
(bfloat16 ones are of `ml_dtypes.bfloat16`). On a CUDA device `out` must be given; the work goes to
`stream`, the address of a CUDA stream, without waiting for it. None is the current stream of the
library an array comes from where DLPack tells it, else the legacy default stream.

Arrays must be C-contiguous unless the op says otherwise. `out` receives the result and is returned;
it must be writable and share no memory with an input, unless the op says otherwise. `threads` is
the number of threads, the caller's included; None is `FASTVID_NUM_THREADS` or, without it, the
processors this process may run on. The result does not depend on it.

Every op raises InputTypeError for an argument of the wrong type or dtype and InputError for one of
the wrong shape, layout or value, before it writes anything; NoDeviceError for a CUDA array where
there is no device or no CUDA kernels.
"""

from __future__ import annotations

from fastvid._ops.attention import (
    attention,
    qk_norm_rope,
    rope_table_3d,
    temporal_attention,
)
from fastvid._ops.colour import rgb_to_yuv, yuv_to_rgb
from fastvid._ops.frames import downscale, luma_to_rgb, planar_to_rgb, rgb_to_luma, rgb_to_planar
from fastvid._ops.noise import randn, scheduler_step
from fastvid._ops.products import linear
from fastvid._ops.warping import (
    inverse_search,
    softmax_splat,
    softmax_splat_workspace,
    warp,
    warp_blend,
)

__all__ = [
    "attention",
    "downscale",
    "inverse_search",
    "linear",
    "luma_to_rgb",
    "planar_to_rgb",
    "qk_norm_rope",
    "randn",
    "rgb_to_luma",
    "rgb_to_planar",
    "rgb_to_yuv",
    "rope_table_3d",
    "scheduler_step",
    "softmax_splat",
    "softmax_splat_workspace",
    "temporal_attention",
    "warp",
    "warp_blend",
    "yuv_to_rgb",
]
