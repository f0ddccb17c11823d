"""The classes and factors of the upscaler: starts, names, colour, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")

from PIL import Image  # noqa: E402

from fastvid import Upscaler  # noqa: E402
from fastvid.errors import InputError  # noqa: E402
from fastvid_export import bundles, ops  # noqa: E402
from fastvid_export.families.upscaler import KINDS, REAL_SHARE, UpscalerFamily  # noqa: E402
from fastvid_export.models.upscaler import UpscalerNet, UpscalerOptions  # noqa: E402
from fastvid_export.training import checkpoint as ckpt  # noqa: E402
from fastvid_export.training.restoration import colour_share, compared, enlarged  # noqa: E402
from fastvid_export.training.upscaling import UpscalingData  # noqa: E402

SMALL: dict[str, Any] = {"channels": 16, "depth": 2}
REAL = UpscalerOptions(kind="real", scale=1, block=2, slope=0.1, colour=True, **SMALL)


def network(options: UpscalerOptions, seed: int = 0) -> UpscalerNet:
    """A network whose every weight is away from its start."""
    torch.manual_seed(seed)
    net = UpscalerNet(options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def built(options: UpscalerOptions, folder: Path) -> Path:
    state = network(options).state_dict()
    checkpoint = ckpt.Checkpoint("upscaler", ckpt.option_dict(options), 1, 2, state, state, {}, {})
    ckpt.save(checkpoint, folder / "best.pt")
    return bundles.build(
        "upscaler", folder / "best.pt", folder / "model", say=lambda line: None
    ).path


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_untrained_it_is_bicubic_at_any_factor(scale: int, block: int) -> None:
    luma = torch.rand(1, 1, 20, 34)
    image = Image.fromarray(luma[0, 0].numpy())
    expected = image.resize((34 * scale, 20 * scale), Image.Resampling.BICUBIC)
    with torch.no_grad():
        net = UpscalerNet(UpscalerOptions(scale=scale, block=block, **SMALL))
        large = net(luma)[0, 0].numpy()
    inner = (slice(2 * scale, -2 * scale),) * 2
    np.testing.assert_allclose(large[inner], np.asarray(expected)[inner], atol=3e-6)


@pytest.mark.parametrize("block", [1, 2])
def test_folding_keeps_the_function_with_colour(block: int) -> None:
    options = UpscalerOptions(scale=2, block=block, slope=0.1, colour=True, **SMALL)
    net, luma, chroma = network(options), torch.rand(2, 1, 18, 22), torch.rand(2, 2, 18, 22) - 0.5
    for ours, theirs in zip(
        net.folded().with_colour(luma, chroma), net.with_colour(luma, chroma), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_untrained_colour_passes_unchanged() -> None:
    luma, chroma = torch.rand(1, 1, 16, 24), torch.rand(1, 2, 16, 24) - 0.5
    with torch.no_grad():
        restored, corrected = UpscalerNet(REAL).with_colour(luma, chroma)
    torch.testing.assert_close(corrected, chroma, rtol=0, atol=0)
    torch.testing.assert_close(restored, luma, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_bundle_with_colour_computes_what_torch_computes(tmp_path: Path, scale: int) -> None:
    options = UpscalerOptions(**(ckpt.option_dict(REAL) | {"scale": scale}))
    folder = built(options, tmp_path)
    frame = np.random.default_rng(3).integers(0, 256, (18, 30, 3), dtype=np.uint8)
    with Upscaler(folder, scale=scale, device="cpu") as model:
        ours = model.upscale_frame(frame)
        assert model.name == ("restore" if scale == 1 else "upscale")
        assert model.bundle.name == f"upscaler-real-x{scale}"
    planes = ops.rgb_to_luma(torch.from_numpy(frame[None]))
    net = network(options).softened(REAL_SHARE[scale])
    theirs = ops.luma_to_rgb(*net.with_colour(*planes))[0].numpy()
    assert ours.shape == (18 * scale, 30 * scale, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.abs(ours.astype(int) - enlarged(frame[None], scale)[0]).max() > 2


@pytest.mark.parametrize("scale", [3, 4])
def test_a_bundle_of_a_larger_factor_computes_what_torch_computes(
    tmp_path: Path, scale: int
) -> None:
    options = UpscalerOptions(scale=scale, block=1, slope=0.1, **SMALL)
    folder = built(options, tmp_path)
    frame = np.random.default_rng(3).integers(0, 256, (17, 30, 3), dtype=np.uint8)
    with Upscaler(folder, scale=scale, device="cpu") as model:
        ours = model.upscale_frame(frame)
    even = np.pad(frame, ((0, 1), (0, 0), (0, 0)), mode="edge")
    luma, chroma = ops.rgb_to_luma(torch.from_numpy(even[None]))
    theirs = ops.luma_to_rgb(network(options)(luma), chroma)[0, : 17 * scale].numpy()
    assert ours.shape == (17 * scale, 30 * scale, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("kind", list(KINDS))
def test_pieces_give_the_pixels_of_the_whole(tmp_path: Path, kind: str) -> None:
    sampling = {field.name for field in dataclasses.fields(UpscalingData)} | {"colour"}
    settings = {k: v for k, v in KINDS[kind].items() if k not in sampling}
    options = UpscalerOptions(kind=kind, colour=kind == "real", **(settings | SMALL))
    folder = built(options, tmp_path)
    frame = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    with Upscaler(folder, device="cpu") as model:
        whole = model.upscale_frame(frame)
    with Upscaler(folder, device="cpu", tile=40) as model:
        pieces = model.upscale_frame(frame)
    assert np.abs(whole.astype(int) - pieces).max() <= 1


def test_classes_are_within_their_sizes(tmp_path: Path) -> None:
    sizes = {}
    for kind in KINDS:
        for scale in (2, 3, 4):
            task = UpscalerFamily().task(tmp_path, tmp_path, {"kind": kind, "scale": str(scale)})
            assert (task.options.kind, task.options.scale) == (kind, scale)
            net = task.build()
            assert isinstance(net, UpscalerNet)
            sizes[kind, scale] = sum(p.numel() for p in net.folded().parameters())
    assert max(sizes.values()) <= 500_000
    assert sizes["fast", 2] < 65_000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "best"}, "kind: setting must be one of fast, quality, real, got 'best'"),
        ({"scale": "5"}, "scale: setting must be one of 2, 3, 4 for kind fast, got 5"),
        ({"scale": "1"}, "must be one of 2, 3, 4 for kind fast, got 1"),
        ({"kind": "real", "scale": "0"}, "one of 1, 2, 3, 4 for kind real, got 0"),
        ({"kind": "quality", "colour": "yes"}, "colour: setting must be yes for kind real"),
        ({"kind": "real", "colour": "no"}, "colour: setting must be yes"),
        ({"kind": "fast", "drawn": "1.5"}, "drawn: setting must be from 0 to 1, got 1.5"),
        ({"kind": "fast", "static": "-1"}, "static: setting must be from 0 to 1, got -1"),
        ({"kind": "real", "colours": "yes"}, "no setting is called colours"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        UpscalerFamily().task(tmp_path, tmp_path, settings)


def test_error_of_colour_is_a_share_and_leaves_brightness_out() -> None:
    truth = np.full((2, 8, 8, 3), 120, np.uint8)
    off = truth + np.array([20, 0, 0], np.uint8)
    assert colour_share(truth + 10, off, truth) == 0
    assert colour_share(off, off, truth) == pytest.approx(1.0)


def test_flicker_is_of_differences_in_time_and_not_of_brightness() -> None:
    truth = np.tile(np.linspace(0, 200, 24), (4, 24, 1))
    steady, unsteady = truth + 5.0, truth + np.array([0, 4, 0, 4])[:, None, None]
    assert compared(steady, unsteady, truth, 1)["flicker"] == 0
    found = compared(unsteady, unsteady, truth, 1)
    assert found["flicker"] == pytest.approx(4.0)
    assert (found["flicker_share"], found["gain"]) == (1.0, 0.0)


@pytest.mark.parametrize("scale", [1, 2])
def test_softened_networks_go_a_share_of_the_way(scale: int) -> None:
    options = UpscalerOptions(scale=scale, block=2, slope=0.1, colour=True, **SMALL)
    luma, chroma = torch.rand(2, 1, 18, 22), torch.rand(2, 2, 18, 22) - 0.5
    net = network(options)
    with torch.no_grad():
        whole = net.with_colour(luma, chroma)
        none = UpscalerNet(options).with_colour(luma, chroma)
        soft = net.softened(0.25).folded().with_colour(luma, chroma)
    for ours, full, plain in zip(soft, whole, none, strict=True):
        torch.testing.assert_close(ours, 0.25 * full + 0.75 * plain, rtol=0, atol=3e-6)
