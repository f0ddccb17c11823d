"""What the benchmarks of warping share: a scene, and peers that run in onnxruntime.

The flow is what a camera gives: a pan, 2 % zoom, a slow field, moving rectangles and a little
noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import timing
import torch
import torch.nn.functional as F
from onnx import ModelProto, helper
from onnx.numpy_helper import from_array

from fastvid import _core

# Rounding of float32 coordinates near 1280 on white noise; torch's normalised grid is worse.
TOLERANCE = 2e-4


class Scene:
    """Two noise images, flows between them, and torch's warp of them."""

    def __init__(self, height: int, width: int) -> None:
        self.size = (height, width)
        generator = torch.Generator().manual_seed(0)
        self.image0 = torch.rand(1, 3, height, width, generator=generator)
        self.image1 = torch.rand(1, 3, height, width, generator=generator)
        forward = camera_flow(height, width, generator)
        self.flow = torch.cat([forward, -0.9 * camera_flow(height, width, generator)], 1)
        self.mask = torch.randn(1, 1, height, width, generator=generator)
        self.base = torch.stack(
            torch.meshgrid(
                torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy"
            )
        )[None].contiguous()

    def grid(self, flow: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        base = self.base.to(flow.dtype)
        scaled = torch.cat([flow[:, :1] / ((width - 1) / 2), flow[:, 1:] / ((height - 1) / 2)], 1)
        return (base + scaled).permute(0, 2, 3, 1)

    def warp(
        self, image: torch.Tensor, flow: torch.Tensor, padding: str = "border"
    ) -> torch.Tensor:
        return F.grid_sample(
            image, self.grid(flow), mode="bilinear", padding_mode=padding, align_corners=True
        )


def camera_flow(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = torch.stack([7.3 + 0.02 * (x - width / 2), -4.2 + 0.02 * (y - height / 2)])[None]
    cells = (max(2, height // 64), max(2, width // 64))
    slow = 2 * torch.randn(1, 2, *cells, generator=generator)
    flow = flow + F.interpolate(slow, size=(height, width), mode="bicubic")
    for _ in range(12):
        top, left, tall, wide = (
            int(torch.randint(low, high, (1,), generator=generator))
            for low, high in ((0, height - 100), (0, width - 100), (40, 100), (40, 100))
        )
        moved = 10 * torch.randn(2, 1, 1, generator=generator)
        flow[0, :, top : top + tall, left : left + wide] += moved
    return (flow + 0.03 * torch.randn(flow.shape, generator=generator)).contiguous()


def other_instruction_sets(function: Callable[[], object], rounds: int) -> timing.Times:
    """The same op where a machine has less to offer."""

    def forced(name: str) -> Callable[[], object]:
        def run() -> object:
            _core._force_isa(name)
            try:
                return function()
            finally:
                _core._force_isa(None)

        return run

    names = [name for name in _core.cpu_isas() if name != _core.cpu_isa()]
    return timing.compare({f"fastvid_{name}": forced(name) for name in names}, rounds=rounds)


def model(
    nodes: Sequence[Any], inputs: dict[str, Any], like: Any, constants: dict[str, Any] | None = None
) -> ModelProto:
    """A graph with output `out`, whose inputs and output have the shapes and dtypes of arrays."""
    values = {
        name: helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in {**inputs, "out": like}.items()
    }
    graph = helper.make_graph(
        nodes,
        "one",
        [values[name] for name in inputs],
        [values["out"]],
        [from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("fastvid", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


class Bound:
    """A session whose inputs and output are bound, so that a run copies nothing."""

    def __init__(self, model: ModelProto, inputs: dict[str, Any], like: Any, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(_core.__file__)
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._held = {name: ort.OrtValue.ortvalue_from_numpy(a) for name, a in inputs.items()}
        for name, value in self._held.items():
            self._binding.bind_ortvalue_input(name, value)
        self._out = ort.OrtValue.ortvalue_from_numpy(np.empty_like(like))
        self._binding.bind_ortvalue_output("out", self._out)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def result(self) -> Any:
        self.run()
        return self._out.numpy().copy()


def require(right: bool, error: Any) -> None:
    if not right:
        raise SystemExit(f"the answer is wrong, so its time means nothing: {error}")


def measured(
    functions: dict[str, Callable[[], object]], megabytes: float, threads: int, rounds: int
) -> dict[str, Any]:
    """Times functions, of which `fastvid` is the one in question, beside copies of as many bytes.

    Instruction sets below the best one are timed as well.
    """
    nbytes = int(1e6 * megabytes)
    time = timing.compare(
        {
            **functions,
            "copy": timing.copy(nbytes, threads),
            "copy_streaming": timing.copy(nbytes, threads, streaming=True),
        },
        rounds=rounds,
        sample_seconds=0.03,
    )
    time |= other_instruction_sets(functions["fastvid"], rounds)
    ratio = {name: timing.ratio(time, name, "fastvid") for name in time if name != "fastvid"}
    percent = timing.percent(time, "fastvid", of="copy")
    return {"megabytes": megabytes, "time": time, "ratio": ratio, "percent_of_copy": percent}


def show(name: str, case: dict[str, Any]) -> None:
    print(f"{name}: {case['megabytes']:.1f} MB, {case['percent_of_copy']} % of copy", case["error"])
    for row, entry in case["time"].items():
        print(
            f"  {row:26s} {entry['median_ms']:8.3f} ms  min {entry['min_ms']:.3f} "
            f"p90 {entry['p90_ms']:.3f}  {case['ratio'].get(row, 1):6.2f}x"
        )
