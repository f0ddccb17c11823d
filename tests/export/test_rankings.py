"""What the rankings measure and draw with, against definitions and known output."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _paths():
    """The benchmarks are scripts: they find each other beside themselves."""
    added = [str(_BENCHMARKS), str(_BENCHMARKS / "quality")]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


def part(name):
    return importlib.import_module(name)


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return np.ascontiguousarray(cv2.resize(rough, (width, height)))


# Measures


def test_ssim_is_that_of_its_definition():
    measures = part("measures")
    a, b = (picture(24, 30, seed)[..., 0].astype(np.float64) for seed in (1, 2))
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for y in range(24 - 10):
        for x in range(30 - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            both = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mp * mq + c1) * (2 * both + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    assert measures.ssim(a, b) == pytest.approx(np.mean(values), abs=2e-4)
    assert measures.ssim(a, a) == pytest.approx(1, abs=1e-6)


def test_ssim_leaves_the_border_out():
    measures = part("measures")
    a = picture(40, 40)[..., 0].astype(np.float64)
    b = a.copy()
    b[:3] = b[-3:] = 255
    assert measures.ssim(b, a, border=3) == pytest.approx(1, abs=1e-6)
    assert measures.ssim(b, a) < 0.999


def test_a_steady_error_is_no_temporal_error_and_a_flickering_one_is():
    measures = part("measures")
    scene = picture(96, 160)
    truth = [np.ascontiguousarray(np.roll(scene, 3 * n, axis=1)) for n in range(4)]
    darker = [(frame * 0.9).astype(np.uint8) for frame in truth]
    assert measures.temporal_error(truth, truth) == 0
    steady = measures.temporal_error(darker, truth)
    every_second = [d if n % 2 else t for n, (t, d) in enumerate(zip(truth, darker, strict=True))]
    flicker = measures.temporal_error(every_second, truth)
    error = np.mean([np.abs(measures.full_luma(t) - measures.full_luma(d))
                     for t, d in zip(truth, darker, strict=True)])  # fmt: skip
    assert flicker == pytest.approx(error, rel=0.1)
    assert steady < 0.1 * flicker


def test_the_feature_distance_sees_blur_before_noise_and_no_brightness():
    pytest.importorskip("torch")
    features = part("learned_features")
    frame = (picture(64, 80) // 2 + 40).astype(np.uint8)
    frame[::4] += 20
    distance = features.FeatureDistance(frame)
    assert distance(frame) == 0
    blurred = cv2.GaussianBlur(frame, (0, 0), 1.5)
    error = np.mean((blurred.astype(float) - frame) ** 2)
    noise = np.random.default_rng(0).normal(0, error**0.5, frame.shape)
    noisy = np.clip(frame + noise + 0.5, 0, 255).astype(np.uint8)
    brighter = frame + np.uint8(round(error**0.5))
    assert distance(blurred) > distance(noisy) > 10 * distance(brighter)


def test_filters_are_learned_again_from_the_same_seed(monkeypatch):
    pytest.importorskip("torch")
    features = part("learned_features")
    monkeypatch.setattr(features, "_PATCHES", 600)
    monkeypatch.setattr(features, "_ROUNDS", 2)
    photos = [picture(200, 220, seed) for seed in (1, 2)]
    first, second = features.learn(photos), features.learn(photos)
    assert {k: v.shape for k, v in first.items()} == {
        k: v.shape for k, v in np.load(features.FILTERS).items()
    }
    assert all(np.array_equal(first[name], second[name]) for name in first)


# Material and ways between frames


def test_places_between_frames_do_not_cross_cuts():
    clips = part("clips")
    still = np.full((20, 32, 32, 3), 60, np.uint8)
    still[9:] = 200
    starts = clips.within_scenes(still, 4)
    assert starts == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15]
    gap = clips.gap_at(still, 9, 1, 4)
    assert len(gap.truth) == 3
    assert gap.times == [0.25, 0.5, 0.75]
    assert [len(gap.around), gap.first] == [2 * gap.first + 2, gap.first]
    # Beyond the clip its outermost frame of that rhythm stands.
    assert np.array_equal(gap.around[-1], still[17])


def test_searched_frames_lie_where_the_motion_is_at_that_time():
    between, clips = part("between"), part("clips")
    scene = picture(96, 192, 3)
    frames = [np.ascontiguousarray(np.roll(scene, 4 * n, axis=1)) for n in range(5)]
    gap = clips.Gap(tuple(frames[1:4]), (frames[0], frames[4]), 0)
    draw = between.methods()["DIS medium"].open("", 1)
    for made, truth in zip(draw(gap, gap.times), gap.truth, strict=True):
        inner = np.abs(made.astype(int) - truth)[16:-16, 40:-40]
        assert inner.mean() < 3


def test_the_filter_of_ffmpeg_gives_the_asked_times():
    between, clips = part("between"), part("clips")
    if "minterpolate" not in between.methods():
        pytest.skip("PyAV's libavfilter has no minterpolate")
    levels = [40 * n for n in range(6)]
    frames = tuple(np.full((64, 64, 3), level, np.uint8) for level in levels)
    gap = clips.Gap((frames[2],) * 3, frames, 2)
    made = between.minterpolated(gap, [0.25, 0.5, 0.75])
    assert [round(float(frame.mean())) for frame in made] == pytest.approx([90, 100, 110], abs=2)


# Ways to enlarge


def test_luma_and_colours_are_split_as_opencv_does():
    enlarge = part("enlarge")
    frame = picture(20, 24)

    def twice(luma):
        return luma.repeat(2, 2).repeat(2, 3)

    made = enlarge._through_luma(twice, frame)
    assert made.shape == (40, 48, 3)
    grey = np.full((8, 8, 3), 130, np.uint8)
    assert np.array_equal(enlarge._through_luma(twice, grey), np.full((16, 16, 3), 130, np.uint8))


def test_resizing_is_that_of_the_papers_kernel():
    enlarge, protocol = part("enlarge"), part("protocol")
    truth = cv2.GaussianBlur(picture(64, 96), (0, 0), 2)
    made = enlarge.methods(2, Path("none"))["bicubic"].open("", 1, None, Path("none"))(
        protocol.reduced(truth, 2)
    )
    assert protocol.psnr(made, truth, 2) > 38


def test_networks_of_ncnn_are_read_with_halves_and_settings(tmp_path):
    torch = pytest.importorskip("torch")
    nets = part("ncnn_nets")
    (tmp_path / "net.param").write_text(
        "7767517\n5 6\n"
        "Input in 0 1 data\n"
        "Convolution first 1 1 data a 0=3 1=1 5=1 6=9 9=2 -23310=1,0.5\n"
        "Split split 1 2 a b c\n"
        "PReLU second 1 1 b d 0=3\n"
        "BinaryOp sum 2 1 d c out 0=0\n"
    )
    eye = -np.eye(3, dtype=np.float16)
    data = np.uint32(0x01306B47).tobytes() + eye.tobytes() + b"\0\0"
    data += np.array([0.25, 0, 0], np.float32).tobytes()
    data += np.array([0, 2, 4], np.float32).tobytes()
    (tmp_path / "net.bin").write_bytes(data)
    net = nets.NcnnNet(tmp_path / "net.param")
    made = net(torch.full((1, 3, 2, 2), 0.5))[0, :, 0, 0]
    # -0.5 and its bias through a slope of a half, then that twice or with PReLU's slope.
    assert made.tolist() == pytest.approx([-0.125, -0.75, -1.25])
    (tmp_path / "net.bin").write_bytes(data + b"\0\0\0\0")
    with pytest.raises(ValueError, match="left over"):
        nets.NcnnNet(tmp_path / "net.param")


def test_own_rows_are_what_ships():
    enlarge, between = part("enlarge"), part("between")
    from fastvid.bundle import shipped

    ours = {n for s in (2, 3, 4) for n, passes, _ in enlarge.own(s) if passes == 1}
    assert ours == {n for n in shipped() if n.startswith("upscaler-") and "-x1" not in n}
    drawn = {n.removeprefix("fastvid ") for n in between.methods() if n.startswith("fastvid ")}
    assert drawn == {n for n in shipped() if n.startswith("interpolator-")}


def test_networks_in_pytorch_are_those_that_ship():
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from fastvid import Interpolator, Upscaler
    from fastvid.metrics import psnr
    from fastvid.scene import Scene

    sys.path.insert(0, str(_BENCHMARKS / "pipelines"))
    peers = part("opencv_torch")
    sys.path.remove(str(_BENCHMARKS / "pipelines"))
    scene = Scene(160, 96, seed=3)
    frame0, frame1 = scene.draw(0.5), scene.draw(0.55)
    with Upscaler("fast", scale=2, device="cpu", backend="onnxruntime") as model:
        ours = model.upscale_frame(frame0)
    assert psnr(peers.TorchUpscaler().upscale(frame0), ours) > 45
    from fastvid_export.models import interpolator as models

    kept = models.ops
    operators = peers.plain_operators()
    # OpenCV's search finds other flows than fastvid's; the rest must be the same.
    operators.inverse_search = kept.inverse_search
    try:
        theirs = peers.TorchInterpolator(operators).between(frame0, frame1)
    finally:
        models.ops = kept
    with Interpolator("fast", device="cpu", backend="onnxruntime") as model:
        ours = model.between(frame0, frame1)
    assert psnr(theirs, ours) > 45


# Rows and plots


def test_rows_take_the_fastest_runtime_of_each_precision():
    tables = part("rank_tables")
    measured = {"date": "2026-01-01", "commit": "0"}
    row = {
        "quality": {"mean": {"all": {"psnr": 30.0}}, "measured": measured},
        "time 8x8 torch": {"median_ms": 5.0, "runtime": "torch", "measured": measured},
        "time 8x8 onnxruntime": {"median_ms": 2.0, "runtime": "onnxruntime", "measured": measured},
        "time 9x9 onnxruntime": {"median_ms": 1.0, "runtime": "onnxruntime", "measured": measured},
        "time 8x8 openvino/bfloat16": {
            "median_ms": 1.5, "runtime": "openvino/bfloat16", "measured": measured,
        },
        "time 8x8 ncnn": {"left_out": "no such module", "runtime": "ncnn", "measured": measured},
    }  # fmt: skip
    result = {"rows": {"x2 net": row, "x3 net": row}}
    (found,) = tables.rows(result, "x2 ", "8x8")
    assert (found.name, tables.score(found)) == ("net", 30.0)
    assert found.best["median_ms"] == 2.0
    assert found.narrow["median_ms"] == found.fastest["median_ms"] == 1.5


def test_plots_are_the_same_each_time_and_name_every_point():
    plots = part("plots")
    points = [("slow & good", 200.0, 36.0, False), ("fastvid", 20.0, 35.0, True),
              ("bad", 30.0, 31.0, False), ("quick", 2.0, 30.0, False)]  # fmt: skip
    text = plots.figure("Title", "note", points)
    assert text == plots.figure("Title", "note", points)
    import xml.etree.ElementTree as ElementTree

    tree = ElementTree.fromstring(text)
    words = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"slow & good", "fastvid", "bad", "quick", "20"} <= set(words)
    dots = [node.attrib for node in tree.iter("{http://www.w3.org/2000/svg}circle")]
    assert sorted(d["class"] for d in dots) == ["own", "peer", "peer", "peer"]
    assert [p[0] for p in plots.best(points)] == ["quick", "fastvid", "slow & good"]
    # A hundred times longer is as far apart wherever it is, and more dB is further up.
    by_name = {p[0]: d for p, d in zip(sorted(points, key=lambda p: (not p[3], 0)), dots,
                                       strict=True)}  # fmt: skip
    assert float(by_name["fastvid"]["cy"]) < max(float(d["cy"]) for d in dots)
