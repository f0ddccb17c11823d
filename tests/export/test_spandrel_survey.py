"""Every network that spandrel knows, small and with random weights: export, and the same result.

Takes many minutes: `pytest -m slow tests/export/test_spandrel_survey.py`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import spandrel_networks
import torch

from fastvid import Upscaler
from fastvid.errors import InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import importers, state_dicts, upscaler_bundles
from fastvid_export.importers import ImportOptions, spandrel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("spandrel") is None, reason="spandrel is not installed"),
]

SIZES = ((96, 96), (101, 133), (40, 70))
"""Of frames: exact, odd, and smaller than a tile."""
RUNS = {one.name: one.runs for one in spandrel.ARCHITECTURES} | {"SPAN": "any size"}


def quiet(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscaler_bundles, "TILE", 64)


@pytest.mark.parametrize("name", spandrel_networks.OPTIONS)
def test_networks_run_as_the_table_says(name: str, tmp_path: Path) -> None:
    architecture = {"RealPLKSR": "PLKSR"}.get(name, name.partition("_")[0])
    runs, path = RUNS[architecture], tmp_path / "network.pth"
    torch.save(spandrel_networks.state(name), path)
    importer = importers.find(path)
    assert importer is not None
    if runs.startswith("refused"):
        with pytest.raises(InputError, match="cannot be used"):
            importer.build(path, tmp_path / "out", ImportOptions("tiny"), quiet)
        return
    bundle = importer.build(path, tmp_path / "out", ImportOptions("tiny"), quiet)
    shape = bundle.graphs["upscale"].inputs[0].shape
    assert (shape[1] == "H") == (runs == "any size")
    assert min(f.value for f in bundle.quality if f.metric == "PSNR against PyTorch") >= 60
    if importer is spandrel and runs == "any size":
        _same_at_any_size(path, tmp_path / "out", bundle.scale or 1)
    with Upscaler(bundle.path, scale=bundle.scale or 1, device="cpu", threads=1) as model:
        for height, width in SIZES:
            frame = Scene(max(width, 64), max(height, 64), seed=2).draw(0.5)[:height, :width]
            made = model.upscale_frame(frame)
            assert made.shape == (height * model.scale, width * model.scale, 3)
            # A network that makes one colour of everything would pass the rest.
            assert made.std() > 1


def _same_at_any_size(path: Path, folder: Path, scale: int) -> None:
    """Frames through the bundle are those through spandrel's network, extended by reflection."""
    described = spandrel._described(state_dicts.read(path), path)
    with Upscaler(folder, scale=scale, device="cpu", threads=1, tile=None) as model:
        for height, width in SIZES:
            frame = Scene(max(width, 64), max(height, 64), seed=2).draw(0.5)[:height, :width]
            missing = [
                (0, a - b)
                for a, b in zip(model._padded(height, width), (height, width), strict=True)
            ]
            seen = np.pad(frame, [*missing, (0, 0)], "reflect")
            planes = torch.from_numpy(seen).permute(2, 0, 1)[None].float() / 255
            with spandrel._quietly():
                wanted = described(planes)[0].permute(1, 2, 0).numpy() * 255
            wanted = wanted[: height * scale, : width * scale]
            made = model.upscale_frame(frame)
            assert np.abs(made - wanted).max() <= 1
            assert psnr(made, np.rint(wanted).astype(np.uint8)) >= 60
