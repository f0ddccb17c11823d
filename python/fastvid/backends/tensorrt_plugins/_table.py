"""Every plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvid.backends.tensorrt_plugins._attention import (
    attention,
    qk_norm_rope,
    temporal_attention,
)
from fastvid.backends.tensorrt_plugins._describe import THREADS, Kernel, Plugin
from fastvid.backends.tensorrt_plugins._warping import warp, warp_blend

Given = Sequence[Any]
Attributes = Mapping[str, Any]


def _float(api: Any, trt: Any, *sizes: Any) -> Any:
    return api.from_shape_expr(sizes, dtype=trt.DataType.FLOAT)


def _pixels(api: Any, *sizes: Any) -> Any:
    """Blocks of one thread per element of a tensor of these sizes."""
    product = sizes[0]
    for size in sizes[1:]:
        product = product * size
    return api.cdiv(product, THREADS)


def _rgb_to_planar() -> Plugin:
    def results(api: Any, trt: Any, inputs: Given, attributes: Attributes) -> list[Any]:
        n, h, w, c = inputs[0].shape_expr
        return [_float(api, trt, n, c, h, w)]

    def kernel(api: Any, inputs: Given, attributes: Attributes) -> Kernel:
        n, h, w, _ = inputs[0].shape_expr
        return Kernel("fastvid_rgb_to_planar", _pixels(api, n, h, w), (n, h, w), {})

    return Plugin(
        name="RgbToPlanar",
        node="RgbToPlanar",
        op="rgb_to_planar",
        kernels="planar",
        inputs=("frames",),
        results=results,
        kernel=kernel,
        dtypes=("f32",),
        levels_in=("frames",),
    )


def _planar_to_rgb() -> Plugin:
    def results(api: Any, trt: Any, inputs: Given, attributes: Attributes) -> list[Any]:
        n, c, h, w = inputs[0].shape_expr
        return [_float(api, trt, n, h, w, c)]

    def kernel(api: Any, inputs: Given, attributes: Attributes) -> Kernel:
        n, _, h, w = inputs[0].shape_expr
        return Kernel("fastvid_planar_to_rgb", _pixels(api, n, h, w), (n, h, w), {})

    return Plugin(
        name="PlanarToRgb",
        node="PlanarToRgb",
        op="planar_to_rgb",
        kernels="planar",
        inputs=("x",),
        results=results,
        kernel=kernel,
        dtypes=("f32",),
        levels_out=True,
    )


def _rgb_to_luma() -> Plugin:
    def results(api: Any, trt: Any, inputs: Given, attributes: Attributes) -> list[Any]:
        n, h, w, _ = inputs[0].shape_expr
        return [_float(api, trt, n, 1, h, w), _float(api, trt, n, 2, h, w)]

    def kernel(api: Any, inputs: Given, attributes: Attributes) -> Kernel:
        n, h, w, _ = inputs[0].shape_expr
        return Kernel("fastvid_rgb_to_luma", _pixels(api, n, h, w), (n, h, w), {})

    return Plugin(
        name="RgbToLuma",
        node="RgbToLuma",
        op="rgb_to_luma",
        kernels="luma",
        inputs=("frames",),
        results=results,
        kernel=kernel,
        outputs=2,
        dtypes=("f32",),
        levels_in=("frames",),
    )


def _luma_to_rgb() -> Plugin:
    def results(api: Any, trt: Any, inputs: Given, attributes: Attributes) -> list[Any]:
        n, _, h, w = inputs[0].shape_expr
        return [_float(api, trt, n, h, w, 3)]

    def kernel(api: Any, inputs: Given, attributes: Attributes) -> Kernel:
        n, _, large, wide = inputs[0].shape_expr
        _, _, h, w = inputs[1].shape_expr
        blocks = _pixels(api, n, large, wide)
        return Kernel("fastvid_luma_to_rgb", blocks, (n, h, w, large // h), {})

    return Plugin(
        name="LumaToRgb",
        node="LumaToRgb",
        op="luma_to_rgb",
        kernels="luma",
        inputs=("luma", "chroma"),
        results=results,
        kernel=kernel,
        dtypes=("f32",),
        levels_out=True,
    )


def _downscale() -> Plugin:
    def results(api: Any, trt: Any, inputs: Given, attributes: Attributes) -> list[Any]:
        n, c, h, w = inputs[0].shape_expr
        factor = attributes["factor"]
        return [_float(api, trt, n, c, h // factor, w // factor)]

    def kernel(api: Any, inputs: Given, attributes: Attributes) -> Kernel:
        n, c, h, w = inputs[0].shape_expr
        factor = attributes["factor"]
        rows, width = n * c * (h // factor), w // factor
        blocks = _pixels(api, rows, width)
        constants = {"fastvid_factor": factor}
        return Kernel("fastvid_downscale", blocks, (rows, width), constants)

    return Plugin(
        name="Downscale",
        node="Downscale",
        op="downscale",
        kernels="downscale",
        inputs=("x",),
        results=results,
        kernel=kernel,
        attributes={"factor": 2},
        dtypes=("f32",),
    )


def _all() -> dict[str, Plugin]:
    plugins = [
        _rgb_to_planar(),
        _planar_to_rgb(),
        _rgb_to_luma(),
        _luma_to_rgb(),
        _downscale(),
        *warp(),
        *warp_blend(),
        *qk_norm_rope(),
        *attention(),
        *temporal_attention(),
    ]
    return {plugin.name: plugin for plugin in plugins}


PLUGINS = _all()
"""By name."""
