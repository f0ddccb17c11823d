"""Plugins of the warps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvid.backends.tensorrt_plugins._describe import Kernel, Plugin

_THREADS = 128
_IMAGES = ("image0", "image1", "flow", "mask")


def warp() -> list[Plugin]:
    """One plugin, of floats: TensorRT's plugins have no uint8."""

    def results(api: Any, trt: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        return [given[0].like()]

    def kernel(api: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Kernel:
        image, flow = given
        n, c, h, w = image.shape_expr
        threads = n * h * w
        if attributes["channels_last"]:
            n, h, w, c = image.shape_expr
            threads = n * h * w * c
            # A thread makes 16 bytes of a pixel where its channels are whole packs of them.
            pack = 4 if "FLOAT" in str(image.dtype) else 8
            if c.is_constant and c.constant_value() % pack == 0:
                threads = n * h * w * (c // pack)
        _, _, flow_height, flow_width = flow.shape_expr
        return Kernel(
            "fastvid_warp",
            api.cdiv(threads, _THREADS),
            (n, c, h, w, flow_height, flow_width),
            {
                "fastvid_zeros": attributes["zeros"],
                "fastvid_channels_last": attributes["channels_last"],
            },
            threads=_THREADS,
        )

    plugin = Plugin(
        name="Warp",
        node="Warp",
        op="warp",
        kernels="warp",
        inputs=("image", "flow"),
        results=results,
        kernel=kernel,
        attributes={"zeros": 0, "channels_last": 0},
    )
    return [plugin]


def warp_blend() -> list[Plugin]:
    """Planes or frames, each without and with a residual."""
    return [
        _warp_blend("WarpBlend", (), frames=False),
        _warp_blend("WarpBlendResidual", ("residual",), frames=False),
        _warp_blend("WarpBlendFrames", (), frames=True),
        _warp_blend("WarpBlendResidualFrames", ("residual",), frames=True),
    ]


def _warp_blend(name: str, optional: tuple[str, ...], *, frames: bool) -> Plugin:
    def results(api: Any, trt: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        if not frames:
            return [given[0].like()]
        n, c, h, w = given[0].shape_expr
        return [api.from_shape_expr((n, h, w, c), dtype=trt.DataType.FLOAT)]

    def kernel(api: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Kernel:
        n, _, h, w = given[0].shape_expr
        _, _, flow_height, flow_width = given[2].shape_expr
        words = ["fastvid_warp_blend", *optional, *(["frames"] if frames else [])]
        return Kernel(
            "_".join(words),
            api.cdiv(n * h * w, _THREADS),
            (n, h, w, flow_height, flow_width),
            {},
            threads=_THREADS,
        )

    return Plugin(
        name=name,
        node="WarpBlend",
        op="warp_blend",
        kernels="warp",
        inputs=(*_IMAGES, *optional),
        all_inputs=(*_IMAGES, "residual"),
        only={"output_uint8": int(frames)},
        results=results,
        kernel=kernel,
        levels_out=frames,
    )
