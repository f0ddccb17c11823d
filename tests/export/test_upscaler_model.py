"""The upscaler network: what it starts as, what folding keeps, and what its graph does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from fastvid import Upscaler  # noqa: E402
from fastvid_export import bundles, onnx, ops  # noqa: E402
from fastvid_export.errors import ExportError  # noqa: E402
from fastvid_export.families.upscaler import UpscalerFamily  # noqa: E402
from fastvid_export.models.upscaler import UpscalerNet, UpscalerOptions  # noqa: E402
from fastvid_export.training import checkpoint as ckpt  # noqa: E402

OPTIONS = UpscalerOptions(channels=16, depth=2)


def network(seed: int = 0) -> UpscalerNet:
    """A network whose every weight is away from its start."""
    torch.manual_seed(seed)
    net = UpscalerNet(OPTIONS)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def saved(net: UpscalerNet, path: Path) -> Path:
    state = net.state_dict()
    ckpt.save(
        ckpt.Checkpoint("upscaler", ckpt.option_dict(OPTIONS), 1, 2, state, state, {}, {}), path
    )
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    checkpoint = saved(network(), folder / "best.pt")
    return bundles.build("upscaler", checkpoint, folder / "tiny-x2", say=lambda line: None).path


def test_untrained_it_is_bicubic() -> None:
    luma = torch.rand(1, 1, 20, 34)
    expected = Image.fromarray(luma[0, 0].numpy()).resize((68, 40), Image.Resampling.BICUBIC)
    with torch.no_grad():
        large = UpscalerNet(OPTIONS)(luma)[0, 0].numpy()
    inner = (slice(4, -4), slice(4, -4))  # at edges Pillow weighs fewer pixels instead of repeating
    np.testing.assert_allclose(large[inner], np.asarray(expected)[inner], atol=2e-6)


def test_folding_keeps_the_function() -> None:
    net, luma = network(), torch.rand(2, 1, 18, 22)
    plain = net.folded()
    assert {type(m) for m in plain.modules() if not list(m.children())} == {torch.nn.Conv2d}
    torch.testing.assert_close(plain(luma), net(luma), rtol=0, atol=2e-6)


def test_a_grey_frame_stays_grey(bundle: Path) -> None:
    with Upscaler(bundle, device="cpu") as model:
        frame = model.upscale_frame(np.full((32, 48, 3), 90, np.uint8))
    assert np.ptp(frame.astype(int), axis=-1).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (33, 64), (54, 96)])
def test_the_bundle_computes_what_torch_computes(bundle: Path, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    with Upscaler(bundle, device="cpu") as model:
        ours = model.upscale_frame(frame)
    even = np.pad(frame, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
    luma, chroma = ops.rgb_to_luma(torch.from_numpy(even[None]))
    theirs = ops.luma_to_rgb(network()(luma), chroma)[0].numpy()
    theirs = theirs[: 2 * size[0], : 2 * size[1]]
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_the_bundle_says_how_far_it_is_from_torch(bundle: Path) -> None:
    from fastvid.bundle import Bundle

    quality = Bundle.load(bundle).quality
    checks = {f.data: f.value for f in quality if f.metric == "largest difference from PyTorch"}
    assert checks.keys() == {
        "upscaled of upscale, random inputs",
        "upscaled of upscale, real inputs",
        "large of luma, random inputs",
        "large of luma, real inputs",
    }
    assert 0 < checks["large of luma, random inputs"] < 1e-4


def test_a_bundle_is_the_same_bytes_when_built_again(bundle: Path, tmp_path: Path) -> None:
    checkpoint = saved(network(), tmp_path / "best.pt")
    again = bundles.build("upscaler", checkpoint, tmp_path / "again", say=lambda line: None)
    assert again.read("upscale.onnx") == (bundle / "upscale.onnx").read_bytes()


def test_a_graph_holds_no_path_of_this_machine(bundle: Path) -> None:
    data = (bundle / "upscale.onnx").read_bytes()
    for path in (str(Path(torch.__file__).parent), str(Path(ops.__file__).parent), ".py"):
        assert path.encode() not in data


def test_a_graph_of_other_weights_is_refused() -> None:
    frames = [np.zeros((20, 20, 3), np.uint8)] * 3
    state = network(seed=1).state_dict()
    checkpoint = ckpt.Checkpoint("upscaler", ckpt.option_dict(OPTIONS), 1, 2, state, state)
    plan = UpscalerFamily().plan(checkpoint, frames, {})
    other_state = network(seed=2).state_dict()
    other = ckpt.Checkpoint("upscaler", ckpt.option_dict(OPTIONS), 1, 2, other_state, other_state)
    other_plan = UpscalerFamily().plan(other, frames, {})
    for ours, theirs in zip(
        (*plan.graphs, *plan.float_checks),
        (*other_plan.graphs, *other_plan.float_checks),
        strict=True,
    ):
        with pytest.raises(ExportError, match="must differ from PyTorch by at most"):
            onnx.compare(ours, onnx.Runner(onnx.trace(theirs)))


def test_a_difference_just_above_the_tolerance_is_refused() -> None:
    class Shifted(torch.nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = shift

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 + self.shift

    def plan(shift: float) -> onnx.GraphPlan:
        port = ("float32", ("N", 3), (0.0, 10.0))
        sample = {"x": np.ones((2, 3), np.float32)}
        return onnx.GraphPlan(
            "shifted",
            Shifted(shift),
            (onnx.Port("x", *port),),
            (onnx.Port("y", *port),),
            {"random": [sample]},
        )

    runner = onnx.Runner(onnx.trace(plan(0.0)))
    (difference,) = onnx.compare(plan(0.0009), runner)
    assert difference.value == pytest.approx(9e-5, rel=0.01)
    with pytest.raises(ExportError, match=r"0\.0001 of the range"):
        onnx.compare(plan(0.0011), runner)
