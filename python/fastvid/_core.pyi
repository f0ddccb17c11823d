from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def cpu_isa() -> str: ...
def cpu_isas() -> list[str]: ...
def _force_isa(name: str | None) -> None: ...
def cuda_compiled() -> bool: ...
def default_threads() -> int: ...
def _dlpack_capsule(
    address: int,
    shape: tuple[int, ...],
    code: int,
    bits: int,
    device_type: int,
    device_id: int,
    owner: object,
    versioned: bool,
) -> object: ...
def rgb_to_planar(
    frames: Any, out: Any, threads: int, stream: int | None
) -> NDArray[np.float32]: ...
def planar_to_rgb(
    x: Any, wide: bool, out: Any, threads: int, stream: int | None
) -> NDArray[Any]: ...
def inverse_search(
    luma0: Any,
    luma1: Any,
    flow01: Any,
    flow10: Any,
    iterations: int,
    stride: int,
    finest: int,
    bidirectional: bool,
    threads: int,
    stream: int | None,
) -> tuple[Any, Any]: ...
def yuv_to_rgb(
    y: Any,
    u: Any,
    v: Any,
    matrix: str,
    full_range: bool,
    bit_depth: int,
    subsampling: str,
    chroma_location: str,
    layout: str,
    wide: bool,
    out: Any,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
def downscale(
    x: Any, factor: int, out: Any, threads: int, stream: int | None
) -> NDArray[np.float32]: ...
def rgb_to_yuv(
    rgb: Any,
    matrix: str,
    full_range: bool,
    bit_depth: int,
    subsampling: str,
    chroma_location: str,
    out_y: Any,
    out_u: Any,
    out_v: Any,
    threads: int,
    stream: int | None,
) -> tuple[Any, Any, Any]: ...
def rgb_to_luma(
    frames: Any, out_luma: Any, out_chroma: Any, threads: int, stream: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def luma_to_rgb(
    luma: Any, chroma: Any, wide: bool, out: Any, threads: int, stream: int | None
) -> NDArray[Any]: ...
def attention(
    q: Any,
    k: Any,
    v: Any,
    bias: Any,
    scale: float | None,
    causal: bool,
    out: Any,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
def linear(
    x: Any,
    weight: Any,
    bias: Any,
    bfloat16: bool,
    out: Any,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
def qk_norm_rope(
    q: Any,
    k: Any,
    q_weight: Any,
    k_weight: Any,
    cos: Any,
    sin: Any,
    norm: int,
    rope: int,
    eps: float,
    q_out: Any,
    k_out: Any,
    threads: int,
    stream: int | None,
) -> tuple[Any, Any]: ...
def randn(
    shape: tuple[int, ...],
    seed: int,
    subsequence: int,
    offset: int,
    dtype: str,
    out: Any,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
def scheduler_step(
    matrix: NDArray[np.float32],
    inputs: tuple[Any, ...],
    uncond: Any,
    guidance_scale: float,
    noise_scale: NDArray[np.float32] | None,
    seed: int,
    subsequence: int,
    offset: int,
    out: tuple[Any, ...],
    out_dtype: str,
    threads: int,
    stream: int | None,
) -> tuple[Any, ...]: ...
def softmax_splat(
    image: Any,
    flow: Any,
    metric: Any,
    mode: str,
    deterministic: bool,
    out: Any,
    workspace: Any,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
def softmax_splat_workspace(
    channels: int, height: int, width: int, mode: str, deterministic: bool
) -> int: ...
def temporal_attention(
    q: Any,
    k: Any,
    v: Any,
    scale: float | None,
    causal: bool,
    bias: Any,
    out: Any,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
def warp(
    images: tuple[Any, ...],
    flow: Any,
    zeros: bool,
    channels_last: bool,
    outs: tuple[Any, ...],
    threads: int,
    stream: int | None,
) -> tuple[Any, ...]: ...
def warp_blend(
    image0: Any,
    image1: Any,
    flow: Any,
    mask: Any,
    residual: Any,
    out: Any,
    out_dtype: str | None,
    threads: int,
    stream: int | None,
) -> NDArray[Any]: ...
