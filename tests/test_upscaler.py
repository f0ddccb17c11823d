"""`Upscaler` on a bundle that repeats pixels, so that every result is known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import bundles
import numpy as np
import pytest

from fastvid.bundle import shipped
from fastvid.errors import FastvidError, InputError, InputTypeError, OutOfMemoryError
from fastvid.upscaler import Upscaler
from fastvid.video import Frame, Stage, Video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def repeat(folder: Path) -> Iterator[Upscaler]:
    bundles.upscaler(folder / "repeat-x2")
    with Upscaler(folder / "repeat-x2", device="cpu") as model:
        yield model


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def repeated(frame: np.ndarray, scale: int = 2) -> np.ndarray:
    return frame.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 31), (64, 48)])
def test_frame_is_scaled_exactly(
    repeat: Upscaler, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    frame = picture(rng, *size)
    result = repeat.upscale_frame(frame)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, repeated(frame))


def test_repr_names_model_and_device(repeat: Upscaler) -> None:
    assert repr(repeat) == f"<Upscaler {repeat.bundle.name} on cpu>"


@pytest.mark.parametrize("padding", ["edge", "reflect"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 8), (30, 33)])
def test_size_rule_is_met_by_padding_and_cropping(
    tmp_path: Path, rng: np.random.Generator, padding: str, size: tuple[int, int]
) -> None:
    bundles.upscaler(tmp_path / "m", padding=padding, multiple_of=8, minimum=16)
    frame = picture(rng, *size)
    seen = []
    with Upscaler(tmp_path / "m", device="cpu") as model:
        run = model._graph("upscale").run
        model._graph("upscale").run = lambda inputs, **options: (
            seen.append(inputs["frames"].shape),
            run(inputs, **options),
        )[1]
        np.testing.assert_array_equal(model.upscale_frame(frame), repeated(frame))
    assert seen == [(1, *(max(16, -(-side // 8) * 8) for side in size), 3)]


def seen_sizes(monkeypatch: pytest.MonkeyPatch, model: Upscaler) -> list[tuple[int, ...]]:
    sizes: list[tuple[int, ...]] = []
    run = model._run
    monkeypatch.setattr(model, "_run", lambda f: (sizes.append(f.shape[:2]), run(f))[1])
    return sizes


def test_large_frames_pass_in_rows_that_give_the_pixels_of_the_whole(
    repeat: Upscaler, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = picture(rng, 330, 40)
    whole = repeat.upscale_frame(frame)
    sizes = seen_sizes(monkeypatch, repeat)
    monkeypatch.setattr(repeat, "_limits", {(330, 40): 40 * 64})
    np.testing.assert_array_equal(repeat.upscale_frame(frame), whole)
    # The network looks two pixels far.
    assert sizes == [(59, 40)] * 6


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (33, 47), (64, 64)])
@pytest.mark.parametrize("tile", [5, 6, 17, 64])
def test_pieces_of_any_size_give_the_pixels_of_the_whole(
    repeat: Upscaler, rng: np.random.Generator, size: tuple[int, int], tile: int
) -> None:
    frame = picture(rng, *size)
    with Upscaler(repeat.bundle.path, device="cpu", tile=tile) as model:
        np.testing.assert_array_equal(model.upscale_frame(frame), repeated(frame))


@pytest.mark.parametrize(
    ("tile", "error", "says"),
    [
        (4, InputError, "at least 5 .* looks 2 pixels far, got 4"),
        (0, InputError, "got 0"),
        (True, InputTypeError, "bool"),
        (1.5, InputTypeError, "float"),
        ("large", InputTypeError, "'large'"),
    ],
)
def test_wrong_tiles_are_refused(
    repeat: Upscaler, tile: object, error: type[FastvidError], says: str
) -> None:
    with pytest.raises(error, match=says):
        Upscaler(repeat.bundle.path, device="cpu", tile=tile)  # type: ignore[arg-type]


def full_above(
    monkeypatch: pytest.MonkeyPatch, model: Upscaler, pixels: int
) -> list[tuple[int, ...]]:
    """Lets the device be full for pieces of more pixels; lists those that were tried."""
    sizes: list[tuple[int, ...]] = []
    run = model._run

    def limited(frame: np.ndarray) -> object:
        sizes.append(frame.shape[:2])
        if frame.shape[0] * frame.shape[1] > pixels:
            raise OutOfMemoryError("upscale: not enough memory")
        return run(frame)

    monkeypatch.setattr(model, "_run", limited)
    monkeypatch.setattr(model, "_limits", {})
    return sizes


def test_full_device_is_tried_once_more_with_smaller_pieces(
    repeat: Upscaler, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = picture(rng, 64, 48)
    whole = repeat.upscale_frame(frame)
    sizes = full_above(monkeypatch, repeat, 16 * 48)
    np.testing.assert_array_equal(repeat.upscale_frame(frame), whole)
    assert sizes == [(64, 48)] + [(16, 48)] * 5
    sizes.clear()
    np.testing.assert_array_equal(repeat.upscale_frame(frame), whole)
    assert sizes == [(16, 48)] * 5


def test_device_that_is_full_for_smaller_pieces_too_is_an_error_with_the_way_out(
    repeat: Upscaler, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = full_above(monkeypatch, repeat, 8)
    with pytest.raises(OutOfMemoryError, match="48x64 in pieces of 48x16") as caught:
        repeat.upscale_frame(picture(rng, 64, 48))
    assert sizes == [(64, 48), (16, 48)]
    assert "tile=" in caught.value.hint
    assert "low_memory=True" in caught.value.hint


def test_read_only_and_strided_frames_are_accepted(
    repeat: Upscaler, rng: np.random.Generator
) -> None:
    frame = picture(rng, 12, 20)[::2, ::-1]
    frame.flags.writeable = False
    np.testing.assert_array_equal(repeat.upscale_frame(frame), repeated(frame))


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (np.zeros((8, 8, 3), np.float32), InputTypeError, "uint8"),
        (np.full((8, 8, 3), np.nan), InputTypeError, "NaN"),
        (np.zeros((8, 8, 3), np.int8), InputTypeError, "int8"),
        ([[[0, 0, 0]]], InputTypeError, "numpy array, got list"),
        (None, InputTypeError, "NoneType"),
        (np.zeros((3, 8, 8), np.uint8), InputError, "moveaxis"),
        (np.zeros((8, 8), np.uint8), InputError, "grey"),
        (np.zeros((8, 8, 4), np.uint8), InputError, "alpha"),
        (np.zeros((2, 8, 8, 3), np.uint8), InputError, "one frame at a time"),
        (np.zeros((0, 8, 3), np.uint8), InputError, "(0, 8, 3)"),
    ],
)
def test_wrong_frames_are_refused_with_the_way_out(
    repeat: Upscaler, frame: object, error: type[FastvidError], says: str
) -> None:
    with pytest.raises(error) as caught:
        repeat.upscale_frame(frame)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_frame_larger_than_the_bundle_allows_is_refused(tmp_path: Path) -> None:
    bundles.upscaler(tmp_path / "m", maximum=32)
    with (
        Upscaler(tmp_path / "m", device="cpu") as model,
        pytest.raises(InputError, match="from 1 to 32"),
    ):
        model.upscale_frame(np.zeros((8, 33, 3), np.uint8))


def test_video_is_upscaled_lazily_and_keeps_time_stamps(
    repeat: Upscaler, rng: np.random.Generator
) -> None:
    frames = [picture(rng, 6, 10) for _ in range(4)]
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames):
            read.append(index)
            yield frame

    video = repeat.upscale(Video.from_frames(source(), Fraction(30000, 1001)))
    assert read == [0]
    assert video.size == (20, 12)
    result = list(video)
    assert [f.time for f in result] == [k * Fraction(1001, 30000) for k in range(4)]
    for frame, large in zip(frames, result, strict=True):
        np.testing.assert_array_equal(large.image, repeated(frame))


def test_upscaler_is_a_stage(repeat: Upscaler) -> None:
    assert isinstance(repeat, Stage)
    assert repeat.name == "upscale"


def test_upscale_refuses_what_is_no_video(repeat: Upscaler) -> None:
    with pytest.raises(InputTypeError, match=r"Video\.open"):
        repeat.upscale("clip.mp4")  # type: ignore[arg-type]


def test_scale_that_a_folder_does_not_offer_is_refused(folder: Path, repeat: Upscaler) -> None:
    with pytest.raises(InputError, match="scale: argument must be 2"):
        Upscaler(folder / "repeat-x2", scale=3)


def test_scale_three_works_where_the_bundle_has_it(tmp_path: Path) -> None:
    bundles.upscaler(tmp_path / "m", scale=3)
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with Upscaler.from_pretrained(tmp_path / "m", scale=3, device="cpu") as model:
        np.testing.assert_array_equal(model.upscale_frame(frame), repeated(frame, 3))


@pytest.mark.parametrize("scale", ["2", 2.0, True, None])
def test_scale_must_be_an_int(scale: object) -> None:
    with pytest.raises(InputTypeError, match="scale: argument must be an int"):
        Upscaler(scale=scale)  # type: ignore[arg-type]


def test_model_for_another_task_is_refused(tmp_path: Path) -> None:
    bundles.interpolator(tmp_path / "m")
    with pytest.raises(InputError, match="task must be 'upscaler'"):
        Upscaler(tmp_path / "m")


def test_report_names_backend_and_device(repeat: Upscaler) -> None:
    report = repeat.report()
    assert (report.device, report.backend) == ("cpu", "onnxruntime")
    assert [graph.graph for graph in report.graphs] == ["upscale"]


def test_cancel_stops_what_runs_and_nothing_later(
    repeat: Upscaler, rng: np.random.Generator
) -> None:
    repeat.cancel()
    frame = picture(rng, 3, 4)
    np.testing.assert_array_equal(repeat.upscale_frame(frame), repeated(frame))


def test_closed_upscaler_says_so(tmp_path: Path) -> None:
    bundles.upscaler(tmp_path / "m")
    model = Upscaler(tmp_path / "m", device="cpu")
    model.close()
    model.close()
    with pytest.raises(FastvidError, match="closed"):
        model.upscale_frame(np.zeros((8, 8, 3), np.uint8))


needs_shipped = pytest.mark.skipif(
    "upscaler-fast-x2" not in shipped(), reason="the trained upscaler is not installed"
)


@needs_shipped
def test_scale_that_is_not_shipped_lists_what_is() -> None:
    with pytest.raises(InputError, match=r"one of .*2.* for model 'fast', got 7"):
        Upscaler(scale=7)


@needs_shipped
def test_shipped_model_beats_bicubic_on_the_drawn_scene() -> None:
    from fastvid._resample import resize_bicubic
    from fastvid.metrics import psnr
    from fastvid.scene import Scene

    truth = Scene(320, 192, seed=5).draw(0.4)
    small = resize_bicubic(truth, 96, 160)
    with Upscaler(device="cpu") as model:
        result = model.upscale_frame(small)
    assert psnr(result, truth) > psnr(resize_bicubic(small, 192, 320), truth) + 0.5


@needs_shipped
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 47)])
def test_shipped_model_takes_any_size(rng: np.random.Generator, size: tuple[int, int]) -> None:
    with Upscaler(device="cpu") as model:
        assert model.upscale_frame(picture(rng, *size)).shape == (2 * size[0], 2 * size[1], 3)


@needs_shipped
def test_shipped_model_shows_no_seam_between_pieces() -> None:
    from fastvid.scene import Scene

    frame = Scene(96, 256, seed=1).draw(0.0)
    with Upscaler(device="cpu") as model:
        whole = model.upscale_frame(frame)
    for tile in (64, 96, 130):
        with Upscaler(device="cpu", tile=tile) as model:
            pieces = model.upscale_frame(frame)
        # Sums of float32 may be ordered differently for another size, so one level may turn.
        assert np.abs(whole.astype(int) - pieces).max() <= 1


@pytest.mark.skipif(
    "upscaler-real-x1" not in shipped(), reason="the trained restorer is not installed"
)
def test_shipped_restorer_takes_noise_away_and_keeps_the_size(rng: np.random.Generator) -> None:
    from fastvid.metrics import psnr
    from fastvid.scene import Scene

    truth = Scene(161, 95, seed=5).draw(0.4)
    noise = rng.normal(0, 8, (*truth.shape[:2], 1))
    noisy = np.clip(np.rint(truth + noise), 0, 255).astype(np.uint8)
    with Upscaler("real", scale=1, device="cpu") as model:
        result = model.upscale_frame(noisy)
        again = model.upscale_frame(noisy)
    assert result.shape == truth.shape
    assert psnr(result, truth) > psnr(noisy, truth) + 0.5
    np.testing.assert_array_equal(result, again)


def test_frames_of_a_stream_may_follow_each_other_with_any_duration(repeat: Upscaler) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    info = Video.from_frames(image[None], 10).info
    stream = iter([Frame(image, Fraction(1, 3), Fraction(5, 7))])
    (result,) = repeat.process(stream, info)
    assert (result.time, result.duration) == (Fraction(1, 3), Fraction(5, 7))


def test_a_power_of_the_models_scale_is_several_passes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    bundles.upscaler(tmp_path / "m", padding="edge", multiple_of=8, minimum=8)
    frame = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    with Upscaler(tmp_path / "m", scale=4, device="cpu") as model:
        np.testing.assert_array_equal(model.upscale_frame(frame), repeated(frame, 4))
        video = model.upscale(Video.from_frames(frame[None], 25))
        assert (video.width, video.height, model.scale) == (44, 36, 4)
        np.testing.assert_array_equal(video.frames()[0], repeated(frame, 4))
    for scale in (3, 6, 32):
        with pytest.raises(InputError, match=f"scale: argument must be 2 .* got {scale}"):
            Upscaler(tmp_path / "m", scale=scale)


def test_a_size_that_a_later_pass_cannot_take_is_refused(tmp_path: Path) -> None:
    bundles.upscaler(tmp_path / "m", maximum=32)
    with Upscaler(tmp_path / "m", scale=4, device="cpu") as model:
        small = Video.from_frames(np.zeros((1, 16, 16, 3), np.uint8), 25)
        assert model.upscale(small).size == (64, 64)
        with pytest.raises(InputError, match="from 1 to 32"):
            model.upscale(Video.from_frames(np.zeros((1, 24, 24, 3), np.uint8), 25))


def test_pieces_obey_what_the_bundle_says(tmp_path: Path, rng: np.random.Generator) -> None:
    import json

    made = bundles.upscaler(tmp_path / "up", multiple_of=4, padding="edge")
    path = made.path / "bundle.json"
    manifest = json.loads(path.read_text())
    for exact in (True, False):
        manifest["tiling"] = {"reach": 10, "multiple_of": 8, "exact": exact}
        path.write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=r"at least 40 .* looks 10 pixels far"):
            Upscaler(made.path, device="cpu", tile=39)
        frame = rng.integers(0, 256, (100, 90, 3), np.uint8)
        with Upscaler(made.path, device="cpu", tile=40) as model:
            assert np.array_equal(model.upscale_frame(frame), frame.repeat(2, 0).repeat(2, 1))
            noted = any("differ a little" in note for note in model.plan(100, 90).notes)
            assert noted != exact
        with Upscaler(made.path, device="cpu", tile=None) as model:
            assert model.plan(100, 90).notes == ()
