"""The interpolator: its network, its graphs, its triplets and what augmenting does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from fastvid import ops as compiled  # noqa: E402
from fastvid.errors import InputError  # noqa: E402
from fastvid_export import onnx as exporting  # noqa: E402
from fastvid_export import (  # noqa: E402
    ops,
    registry,
)
from fastvid_export.models.field_mixing import (  # noqa: E402
    ACROSS,
    ALONG,
    SHARES,
    Mixing,
    Refined,
)
from fastvid_export.models.interpolator import (  # noqa: E402
    BetweenGraph,
    InterpolationNet,
    InterpolatorOptions,
    MotionGraph,
    project,
)
from fastvid_export.models.interpolator_quality import (  # noqa: E402
    QualityBetweenGraph,
    QualityMotionGraph,
    QualityNet,
    QualityOptions,
)
from fastvid_export.training.checkpoint import Checkpoint  # noqa: E402
from fastvid_export.training.interpolation import augment  # noqa: E402
from fastvid_export.training.motion_scenes import draw_triplet  # noqa: E402
from fastvid_export.training.triplets import Sample, TripletSet, crop, luma_half, make_sample  # noqa: E402

FAST = InterpolatorOptions(
    coarse_channels=16, coarse_depth=3, fine_channels=16, fine_depth=3, last_channels=8
)
QUALITY = QualityOptions(
    encoder4=8, encoder8=8, encoder16=8, refine4=8, refine8=8, refine16=8, depth4=1, depth8=1,
    depth16=1, detail=8, scene=8, scene_depth=1,
)  # fmt: skip
Net = InterpolationNet | QualityNet


def untrained(kind: str) -> Net:
    torch.manual_seed(5)
    return (InterpolationNet(FAST) if kind == "fast" else QualityNet(QUALITY)).eval()


def noise(rng: np.random.Generator, *shape: int) -> Any:
    return torch.from_numpy(rng.random(shape, dtype=np.float32))


def textured(rng: np.random.Generator, height: int, width: int) -> Any:
    small = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def trained(kind: str) -> Net:
    """A network whose last layers are not zero, as if trained."""
    net = untrained(kind)
    for weight in net.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    return net


def graphs(net: Net) -> tuple[Any, Any]:
    if isinstance(net, InterpolationNet):
        return MotionGraph(), BetweenGraph(net)
    return QualityMotionGraph(net), QualityBetweenGraph(net)


SEARCHES = {"fast": 1, "quality": 3}
"""That a network starts from."""


both_classes = pytest.mark.parametrize("kind", ["fast", "quality"])


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_torch_and_compiled_ops_warp_alike(rng: np.random.Generator, scale: int) -> None:
    image, other = noise(rng, 1, 3, 32, 48), noise(rng, 1, 3, 32, 48)
    flow = 6 * noise(rng, 1, 4, 32 // scale, 48 // scale) - 3
    mask = 4 * noise(rng, 1, 1, 32 // scale, 48 // scale) - 2
    warped = compiled.warp(image.numpy(), np.ascontiguousarray(flow[:, :2]))
    np.testing.assert_allclose(ops.warp(image, flow[:, :2]), warped, atol=2e-5)
    blended = compiled.warp_blend(image.numpy(), other.numpy(), flow.numpy(), mask.numpy())
    np.testing.assert_allclose(ops.warp_blend(image, other, flow, mask), blended, atol=2e-5)


@pytest.mark.parametrize("timestep", [0.0, 0.25, 0.5, 1.0])
def test_motion_is_carried_to_the_time_between(timestep: float) -> None:
    """Motion that grows to the right: the pixel at x came from x - t v and moved on with it."""
    columns = torch.arange(64.0)
    # A pixel at x of frame 0 is at 1.125 x in frame 1.
    forth = torch.stack([columns / 8, 0 * columns]).reshape(1, 2, 1, 64).expand(1, 2, 32, 64)
    back = torch.stack([-columns / 9, 0 * columns]).reshape(1, 2, 1, 64).expand(1, 2, 32, 64)
    t = timestep
    flow, doubt = project(torch.cat([forth, back], 1), torch.full((1, 1, 1, 1), t))
    speed = columns / 8 / (1 + t / 8)
    inner = np.s_[0, :, 16, 4:48]
    zero = 0 * speed
    expected = torch.stack([-t * speed, zero, (1 - t) * speed, zero])[:, 4:48]
    torch.testing.assert_close(flow[inner], expected, atol=0.02, rtol=0)
    torch.testing.assert_close(doubt[inner], 0 * expected[:2], atol=0.1, rtol=0)


@both_classes
def test_untrained_network_warps_by_the_searched_flows(rng: np.random.Generator, kind: str) -> None:
    image0, image1 = noise(rng, 1, 3, 48, 64), noise(rng, 1, 3, 48, 64)
    speed = torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1)
    flow = torch.cat([speed, -speed] * SEARCHES[kind], 1).expand(1, -1, 24, 32)
    out = untrained(kind)(image0, image1, flow, torch.tensor([0.25]))
    # The search speaks of the half-size frame.
    carried = torch.cat([-0.5 * speed, 1.5 * speed], 1).expand(1, 4, 12, 16)
    expected = ops.warp_blend(image0, image1, carried, torch.zeros(1, 1, 12, 16))
    if kind == "quality":
        still = 0.75 * image0 + 0.25 * image1
        expected = (1 - SHARES[-1]) * expected + SHARES[-1] * still
        # Three quarters of the way to the middle, where the doubt is greatest.
        along = 0.75 * ALONG * 2 * speed
        for offset in (along, torch.tensor(ACROSS).reshape(1, 2, 1, 1)):
            moved = [ops.warp(expected, (s * offset).expand(1, 2, 48, 64)) for s in (1, -1)]
            expected = (moved[0] + moved[1]) / 2
    torch.testing.assert_close(out.frame, expected, atol=1e-5, rtol=0)


def mixed(rng: np.random.Generator) -> tuple[Mixing, tuple[Any, ...]]:
    """What mixes, and its arguments: fields that have nothing in common."""
    fields = [4 * noise(rng, 1, 4, 12, 16) - 2 for _ in range(4)]
    refined = Refined(
        4 * noise(rng, 1, 4, 12, 16) - 2,
        4 * noise(rng, 1, 4, 24, 32) - 2,
        noise(rng, 1, 1, 24, 32),
        0.1 * noise(rng, 1, 3, 48, 64),
        noise(rng, 1, 8, 12, 16),
    )
    images = noise(rng, 1, 3, 48, 64), noise(rng, 1, 3, 48, 64)
    t, moving = torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 12, 16)
    return Mixing(8, 8, 1), (*images, refined, fields, noise(rng, 1, 2, 12, 16), t, moving)


@pytest.mark.parametrize("chosen", range(4))
def test_each_field_can_be_chosen(rng: np.random.Generator, chosen: int) -> None:
    mixing, arguments = mixed(rng)
    _, image1, refined, fields = arguments[:4]
    with torch.no_grad():
        # Nothing of what came before this field, nothing of what follows; frame 1 alone.
        mixing.head.bias[chosen] = -99
        mixing.head.bias[chosen + 1 : 4] = 99
        mixing.head.bias[4 + chosen] = -99
        # No spread.
        mixing.head.bias[8] = -10 * ALONG
        mixing.head.bias[11:] = -torch.tensor(ACROSS)
        found = mixing.eval()(*arguments)
    expected = ops.warp(image1, fields[chosen][:, 2:].contiguous()) + refined.residual
    torch.testing.assert_close(found, expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_mixing_is_the_same_in_training(rng: np.random.Generator) -> None:
    mixing, arguments = mixed(rng)
    torch.nn.init.normal_(mixing.head.weight, std=0.1)
    found = mixing.train()(*arguments)
    torch.testing.assert_close(found, mixing.eval()(*arguments), atol=1e-5, rtol=0)


@both_classes
def test_every_weight_gets_a_gradient(rng: np.random.Generator, kind: str) -> None:
    net = trained(kind)
    images = noise(rng, 2, 3, 32, 48), noise(rng, 2, 3, 32, 48)
    flow = 4 * noise(rng, 2, 4 * SEARCHES[kind], 16, 24) - 2
    net(*images, flow, torch.tensor([0.5, 0.3])).frame.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@both_classes
def test_what_is_still_stays_as_it_is(rng: np.random.Generator, kind: str) -> None:
    frame0 = textured(rng, 96, 192)
    frame1 = frame0.copy()
    frame1[:, 128:] = textured(rng, 96, 64)
    pair = [torch.from_numpy(f[None].copy()) for f in (frame0, frame1)]
    motion, between = graphs(trained(kind))
    with torch.no_grad():
        drawn = between(*motion(*pair), torch.tensor([0.5])).numpy()[0]
        still = between(*motion(pair[0], pair[0]), torch.tensor([0.5])).numpy()[0]
    np.testing.assert_array_equal(still, frame0)
    np.testing.assert_array_equal(drawn[:, :96], frame0[:, :96])
    assert (drawn[:, 128:] != frame0[:, 128:]).mean() > 0.5


@both_classes
def test_exported_graphs_equal_pytorch(rng: np.random.Generator, kind: str) -> None:
    state = trained(kind).state_dict()
    name = {"fast": "interpolator", "quality": "interpolator-quality"}[kind]
    checkpoint = Checkpoint(
        task=name, options=vars(FAST if kind == "fast" else QUALITY), seed=1, step=1,
        model=state, ema=state, optimizer={}, metrics={},
    )  # fmt: skip
    frames = [textured(rng, 64, 96) for _ in range(3)]
    plan = registry.family(name).plan(checkpoint, frames, {})
    assert plan.name == f"interpolator-{kind}"
    for graph in (*plan.graphs, *plan.float_checks):
        assert exporting.export(graph).differences


def test_half_luma_is_what_the_graph_searches(rng: np.random.Generator) -> None:
    frame = textured(rng, 35, 47)
    expected = frame[:34, :46].astype(np.float64).reshape(17, 2, 23, 2, 3).mean((1, 3)) / 255
    found = luma_half(frame)
    assert found.shape == (1, 1, 17, 23)
    np.testing.assert_allclose(found[0, 0], expected @ [0.299, 0.587, 0.114], atol=1e-6)


def test_drawn_triplets_repeat_and_move(rng: np.random.Generator) -> None:
    photos = [Image.fromarray(textured(rng, 300, 400)) for _ in range(3)]
    first, again = (draw_triplet(np.random.default_rng(5), photos, 96, 24, 0.4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (3, 96, 96, 3)
    assert first.dtype == np.uint8
    assert (first[0] != first[2]).mean() > 0.2


def panned(rng: np.random.Generator) -> Sample:
    """A picture that moves 8 pixels right and 4 down from frame 0 to frame 1."""
    wide = textured(rng, 180, 180)
    views = [wide[20 - 2 * i : 148 - 2 * i, 30 - 4 * i : 158 - 4 * i] for i in range(3)]
    return make_sample(np.stack(views), 0.5)


def test_samples_hold_the_flows_of_the_frames(rng: np.random.Generator) -> None:
    sample = panned(rng)
    inner = np.s_[:, 16:-16, 16:-16]
    # In pixels of the half-size frame.
    expected = [4, 2, -4, -2] * 3
    np.testing.assert_allclose(np.median(sample.flow[inner], (1, 2)), expected, atol=0.1)
    np.testing.assert_allclose(np.median(sample.label[inner], (1, 2)), [-2, -1, 2, 1], atol=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_augmented_flows_still_fit_their_frames(rng: np.random.Generator, seed: int) -> None:
    sample = crop(panned(rng), 16, 16, 96)
    chosen = np.random.default_rng(seed)
    frames, flow, label, timestep = augment(
        chosen, sample.frames, sample.flow, sample.label, sample.timestep
    )
    assert timestep == 0.5
    middle = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    for field in np.split(flow, 3):
        ahead, back = field[:2], field[2:]
        np.testing.assert_allclose(np.median(ahead, (1, 2)), -np.median(back, (1, 2)), atol=0.1)
        carried = -0.5 * np.median(ahead, (1, 2))
        np.testing.assert_allclose(np.median(label[:2], (1, 2)), carried, atol=0.2)
    for neighbour, pair in ((0, slice(0, 2)), (2, slice(2, 4))):
        known = torch.from_numpy(label[None, pair] * 2)
        warped = ops.warp(middle[neighbour : neighbour + 1], known)[0]
        error = (warped - middle[1]).abs()[:, 16:-16, 16:-16].mean()
        unmoved = (middle[neighbour] - middle[1]).abs()[:, 16:-16, 16:-16].mean()
        assert error < 0.25 * unmoved


def test_samples_across_a_cut_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr("fastvid_export.training.triplets.CROP", 96)
    good = crop(panned(rng), 16, 16, 96)
    frames = good.frames.copy()
    frames[2] = 255 - frames[2]
    cut = Sample(frames, good.flow, good.label, 0.5)
    TripletSet.write(tmp_path / "set", iter([good, cut, good]), 3)
    triplets = TripletSet(tmp_path / "set")
    assert len(triplets) == 3
    assert triplets.sound().tolist() == [0, 2]


def test_a_cache_of_too_few_searches_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr("fastvid_export.training.triplets.CROP", 96)
    sample = crop(panned(rng), 16, 16, 96)
    for name in ("train-real", "train-coded", "train-drawn", "valid"):
        TripletSet.write(tmp_path / name, iter([sample]), 1)
        one = np.load(tmp_path / name / "flow.npy")[:, :4]
        np.save(tmp_path / name / "flow.npy", one)
    family = registry.family("interpolator")
    family.task(tmp_path, tmp_path, {}).prepare()
    with pytest.raises(InputError, match="3 searches of a sample, got 1"):
        registry.family("interpolator-quality").task(tmp_path, tmp_path, {}).prepare()


def test_errors_are_set_against_what_is_usual_in_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr("fastvid_export.training.triplets.CROP", 96)
    monkeypatch.setattr(
        "fastvid_export.training.material.all_clips", lambda _: [Path("a"), Path("b")]
    )
    still = Sample(
        np.repeat(textured(rng, 96, 96)[None], 3, 0),
        np.zeros((12, 48, 48)),
        np.zeros((4, 48, 48)),
        0.5,
    )
    wrong = Sample(
        np.stack([textured(rng, 96, 96) for _ in range(3)]), still.flow, still.label, 0.5
    )
    moving = crop(panned(rng), 16, 16, 96)
    TripletSet.write(tmp_path, iter([still, moving, wrong, wrong]), 4)
    triplets = TripletSet(tmp_path)
    errors = [triplets.start_error(i) for i in range(4)]
    assert errors[0] < 1e-12
    assert 1e-12 < errors[1] < 0.1 * errors[2]
    task = registry.family("interpolator-quality").task(tmp_path, tmp_path, {})
    first, second, *rest = task.usual_errors("train-real", triplets)
    assert first == second == pytest.approx(4e-6 + errors[1] / 2)
    assert rest == pytest.approx([4e-6 + errors[2]] * 2)
    own = task.usual_errors("train-drawn", triplets)
    assert own == pytest.approx(np.add(errors, 4e-6))
