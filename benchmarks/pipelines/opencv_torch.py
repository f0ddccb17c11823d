"""The job of `whole_file.py` as it is done with OpenCV and PyTorch, frame after frame.

    python benchmarks/pipelines/opencv_torch.py '{"source": ..., "target": ..., "way": ...}'

OpenCV decodes, PyTorch runs the very networks that ship with fastvid, with weights read from the
bundles, PyAV encodes: `"way": "network"`. Every step is what PyTorch and OpenCV offer for it:
`grid_sample` to warp, average pooling to reduce, DIS for the first flow of the interpolator, OpenCV
to split and join colours and to resize chroma. With `"way": "dis"` frames are drawn between by DIS
alone, and `"encode"` repeats and resizes frames, to show what the rest costs. Prints the peak of
its memory in bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


class TorchInterpolator:
    """The shipped interpolator in PyTorch, without any of fastvid's operators.

    Args:
        operators: Instead of `plain_operators()`.
    """

    def __init__(self, operators: Any = None) -> None:
        import torch

        from fastvid_export.models import interpolator as models

        manifest, weights = read_bundle("interpolator-fast", "between.onnx")
        options = options_of(models.InterpolatorOptions, manifest)
        models.ops = operators or plain_operators()  # type: ignore[attr-defined]
        self._net = models.InterpolationNet(options).eval()
        self._net.load_state_dict({k.removeprefix("net."): v for k, v in weights.items()})
        self._motion, self._torch = models.MotionGraph(), torch
        self._between = models.BetweenGraph(self._net)
        self._step = int(manifest["size_rule"]["multiple_of"])

    def between(self, frame0: Frame, frame1: Frame) -> Frame:
        """The frame in the middle."""
        torch = self._torch
        height, width = frame0.shape[:2]
        rim = ((0, -height % self._step), (0, -width % self._step), (0, 0))
        with torch.inference_mode():
            frames = [torch.from_numpy(np.pad(f, rim, "edge")[None]) for f in (frame0, frame1)]
            features = self._motion(*frames)
            made: Frame = self._between(*features, torch.tensor([0.5]))[0].numpy()
        return made[:height, :width]


class TorchUpscaler:
    """The shipped upscaler in PyTorch, on luma."""

    def __init__(self) -> None:
        import torch

        from fastvid_export.models.upscaler import UpscalerNet, UpscalerOptions

        manifest, weights = read_bundle("upscaler-fast-x2", "upscale.onnx")
        options = options_of(UpscalerOptions, manifest)
        self._net = UpscalerNet(options).folded()
        self._net.load_state_dict({k.removeprefix("net."): v for k, v in weights.items()})
        self._torch = torch

    def upscale(self, frame: Frame) -> Frame:
        """Twice the size."""
        torch = self._torch
        luma, red, blue = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
        with torch.inference_mode():
            planes = torch.from_numpy(luma)[None, None].float() / 255
            made = (self._net(planes).clamp(0, 1) * 255).round().to(torch.uint8)[0, 0].numpy()
        size = made.shape[::-1]
        chroma = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in (red, blue)]
        return cv2.cvtColor(cv2.merge([made, *chroma]), cv2.COLOR_YCrCb2RGB)  # type: ignore[return-value]


def plain_operators() -> Any:
    """What the networks take from `fastvid_export.ops`, of PyTorch and OpenCV alone."""
    import torch
    import torch.nn.functional as F

    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def inverse_search(luma0: Any, luma1: Any) -> Any:
        grey = [(luma[0, 0] * 255).round().to(torch.uint8).numpy() for luma in (luma0, luma1)]
        flows = [search.calc(*pair, None) for pair in (grey, grey[::-1])]
        return torch.from_numpy(np.concatenate(flows, -1)).permute(2, 0, 1)[None].contiguous()

    def warp(image: Any, flow: Any) -> Any:
        height, width = image.shape[2:]
        ys, xs = torch.meshgrid(
            torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
        )
        sides = torch.tensor([(width - 1) / 2, (height - 1) / 2]).view(1, 2, 1, 1)
        grid = torch.stack([xs, ys])[None] + flow / sides
        at = grid.permute(0, 2, 3, 1)
        return F.grid_sample(image, at, padding_mode="border", align_corners=True)

    def warp_blend(
        image0: Any, image1: Any, flow: Any, mask: Any, *, as_frames: bool = False
    ) -> Any:
        size = image0.shape[2:]
        flow, mask = (
            F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (flow, mask)
        )
        share = mask.sigmoid()
        made = share * warp(image0, flow[:, :2]) + (1 - share) * warp(image1, flow[:, 2:])
        if not as_frames:
            return made
        return (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    return SimpleNamespace(
        inverse_search=inverse_search,
        warp=warp,
        warp_blend=warp_blend,
        downscale=lambda x, factor: F.avg_pool2d(x, factor),
        rgb_to_planar=lambda frames: frames.permute(0, 3, 1, 2).float() / 255,
    )


def read_bundle(name: str, file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest of a shipped bundle, and the weights in one of its graphs."""
    import onnx
    import torch
    from onnx import numpy_helper

    from fastvid.bundle import shipped

    folder = shipped()[name]
    graph = onnx.load(folder / file).graph
    stored = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
    weights = {name: value for name, value in stored.items() if name.startswith("net.")}
    for node in graph.node:
        # Equal arrays are stored once: a bias may stand under another layer's name.
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[1] in weights:
            layer = node.input[1].removesuffix(".weight")
            weights[f"{layer}.bias"] = stored[node.input[2]]
    return json.loads((folder / "bundle.json").read_text()), weights


def options_of(kind: Any, manifest: dict[str, Any]) -> Any:
    """The shape of a network, from what its bundle says of it."""
    settings = manifest["provenance"]["settings"]
    return kind(**{k: v for k, v in settings.items() if k in kind.__dataclass_fields__})


def frames_of(path: str) -> Iterator[Frame]:
    """RGB frames of a file, by OpenCV."""
    capture = cv2.VideoCapture(path)
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[misc]


def ways(way: str) -> tuple[Callable[[Frame, Frame], Frame], Callable[[Frame], Frame]]:
    """How to draw between two frames, and how to enlarge one."""
    if way == "encode":
        return lambda a, b: a, lambda f: cv2.resize(  # type: ignore[return-value]
            f, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST
        )
    larger = TorchUpscaler().upscale
    if way == "network":
        return TorchInterpolator().between, larger
    from quality.interpolator import Dis

    return Dis("medium").between, larger


def main() -> None:
    """Reads, draws, enlarges, writes."""
    from whole_file import RATE, SIZE, Writer

    from fastvid.bench import probes

    request = json.loads(sys.argv[1])
    cv2.setNumThreads(request["threads"])
    if request["way"] != "encode":
        import torch

        torch.set_num_threads(request["threads"])
    between, enlarge = ways(request["way"])
    width, height = SIZE
    with Writer(request["target"], (2 * width, 2 * height), 2 * RATE) as writer:
        before = None
        for frame in frames_of(request["source"]):
            if before is not None:
                writer.add(enlarge(between(before, frame)))
            writer.add(enlarge(frame))
            before = frame
        # The last frame lasts as long as any other.
        if before is not None:
            writer.add(enlarge(before))
    print(probes.peak_rss())


if __name__ == "__main__":
    main()
