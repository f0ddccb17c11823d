"""Time of networks that others trained: through fastvid, and in PyTorch as they were published.

    python benchmarks/bench_import_upscalers.py [--network rlfn-s-x2] [--weights FOLDER]
        [--size 640x360] [--rounds 6] [--threads 2]

A network's work is its convolutions: parameters times pixels, nearly, as all but a few of them work
at the size of the frame. RLFN-S x2 has 454,620 parameters, 98.8 GMAC or 198 GFLOP a frame of
640x360; the maps between its layers have 48 channels, 44 MB each, read and written about 100 times
a frame. Both are printed and measured: `multiply` is a matrix product of as many operations.

The answer is checked first: fastvid's frame must be PyTorch's, to one level of 255. PyTorch is
given planes of floats and gives planes of floats; fastvid takes and gives frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import timing
import torch
from torch import nn

from fastvid import Upscaler
from fastvid.scene import Scene
from fastvid_export import state_dicts, upscaler_bundles
from fastvid_export.importers import ImportOptions, upscalers
from fastvid_export.upscaler_bundles import Network

_WEIGHTS = timing.ROOT.parent / "shared" / "data" / "weights"
NETWORKS = {
    "rlfn-s-x2": "rlfn/rlfn_s_x2.pth",
    "rlfn-s-x4": "rlfn/rlfn_s_x4.pth",
    "rlfn-ntire-x4": "rlfn/rlfn_ntire_x4.pth",
    "span-28-x4": "span_ntire2025/team51_span.pth",
    "efdn-x4": "span_ntire2025/team00_EFDN.pth",
    "fsrcnn-x2": "fsrcnn_pb/FSRCNN_x2.pb",
    "espcn-x2": "espcn_pb/ESPCN_x2.pb",
}


def main() -> None:
    """Checks, times, adds to `results/import_upscalers.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--weights", type=Path, default=_WEIGHTS)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = timing.RESULTS / "import_upscalers.json"
    rows = json.loads(path.read_text())["networks"] if path.is_file() else {}
    for name in options.network or ["rlfn-s-x2"]:
        rows[name] = _measured(name, options)
        print(json.dumps(rows[name], indent=1))
    timing.write_results(path, {"networks": rows})


def _measured(name: str, options: argparse.Namespace) -> dict[str, object]:
    width, height = map(int, options.size.split("x"))
    network = network_of(options.weights / NETWORKS[name])
    frame = Scene(width, height, seed=7).draw(0.4)
    planes = torch.from_numpy(frame[None]).permute(0, 3, 1, 2).float() / 255
    if network.channels == 1:
        planes = (planes * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(
            1, keepdim=True
        )
    with tempfile.TemporaryDirectory() as folder:
        bundle = upscaler_bundles.write(network, name, Path(folder) / name, lambda line: None)
        model = Upscaler(
            bundle.path, scale=network.scale, threads=options.threads, device="cpu", tile=None
        )
        with torch.inference_mode():
            macs, wanted = _macs(network, planes)
            difference = _levels(model.upscale_frame(frame), wanted, network)
            if difference > 1:
                raise SystemExit(f"{name} differs from PyTorch by {difference} levels")
            times = timing.compare(
                {
                    "fastvid": lambda: model.upscale_frame(frame),
                    "torch": lambda: network.source(planes),
                    "multiply": timing.multiply(2 * macs, options.threads),
                },
                rounds=options.rounds,
            )
    return {
        "size": [width, height],
        "threads": options.threads,
        "scale": network.scale,
        "parameters": sum(p.numel() for p in network.module.parameters()),
        "gmac": round(macs / 1e9, 2),
        "difference_levels": difference,
        "time": times,
        "times_faster_than_torch": timing.ratio(times, "torch", "fastvid"),
        "percent_of_multiply": timing.percent(times, "fastvid", of="multiply"),
    }


def network_of(path: Path) -> Network:
    if path.suffix == ".pb":
        network = upscalers._from_constants(path)
    else:
        state = state_dicts.read(path)
        kind = upscalers._find(state.keys())
        assert kind is not None
        network = kind.make(state, ImportOptions(path.stem))
    return upscaler_bundles.of_file(network, path, None)


def _macs(network: Network, planes: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Multiplications of the convolutions for these planes, and the result."""
    counted = [0]

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counted[0] += output.numel() * layer.weight[0].numel()

    handles = [
        layer.register_forward_hook(count)
        for layer in network.module.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    network.module(planes)
    for handle in handles:
        handle.remove()
    return counted[0], network.source(planes)


def _levels(made: np.ndarray, wanted: torch.Tensor, network: Network) -> int:
    """Largest difference of the frames; of a network on luma, of luma where no colour clips."""
    if network.channels == 1:
        luma = made.astype(np.float64) @ [0.299, 0.587, 0.114]
        inside = ((made > 0) & (made < 255)).all(-1)
        return int(np.abs(luma - 255 * wanted[0, 0].numpy())[inside].max())
    levels = wanted.clamp(0, 1).mul(255).round()[0].permute(1, 2, 0).numpy()
    return int(np.abs(made - levels).max())


if __name__ == "__main__":
    main()
