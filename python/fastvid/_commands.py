"""What the commands do, once their arguments are parsed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from fastvid import _model_rows
from fastvid._memory import MemoryPlan
from fastvid._sheet import contact_sheet, write_png
from fastvid.bundle import shipped
from fastvid.errors import InputError, OutOfMemoryError
from fastvid.generator import Generator
from fastvid.interpolator import Interpolator
from fastvid.pipeline import Pipeline, RunResult
from fastvid.progress import ProgressDisplay, split
from fastvid.upscaler import Upscaler
from fastvid.video import Video
from fastvid.video.target import Target
from fastvid.video.types import Frame, RgbImage, Stage, VideoInfo, eight_bits
from fastvid.video.writer import FORMATS

if TYPE_CHECKING:
    from fastvid.backends.tensorrt import Progress as EngineProgress

Model = Generator | Interpolator | Upscaler
GENERATE_OPTIONS = (
    "negative_prompt",
    "strength",
    "height",
    "width",
    "num_frames",
    "frame_rate",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "seed",
    "noise",
    "scheduler",
    "flow_shift",
)


def upscale(options: argparse.Namespace) -> int:
    """`fastvid upscale`."""
    return _enlarge(options, options.scale)


def restore(options: argparse.Namespace) -> int:
    """`fastvid restore`: an upscaler of factor 1."""
    return _enlarge(options, 1)


def _enlarge(options: argparse.Namespace, scale: int) -> int:
    video = _open(options)
    tile = _tile(options.tile)
    with Upscaler(options.model, scale=scale, tile=tile, **_work(options)) as model:
        return _save(options, video, [(model, model)])


def interpolate(options: argparse.Namespace) -> int:
    """`fastvid interpolate`."""
    video = _open(options)
    with Interpolator(options.model, **_work(options)) as model:
        stage = model.stage(
            factor=options.factor,
            fps=options.fps,
            scene_cuts=not options.no_scene_cuts,
            duplicates=options.duplicates,
        )
        return _save(options, video, [(model, stage)])


def generate(options: argparse.Namespace) -> int:
    """`fastvid generate`: everything in one process, frames passing on as they are decoded."""
    from fastvid.video.images import read_image

    # What cannot be written is said before anything is drawn.
    for path in (options.output, options.preview):
        if path is not None:
            Target(path, overwrite=options.overwrite).discard()
    pictures: dict[str, Any] = {
        name: read_image(getattr(options, name))
        for name in ("image", "last_image")
        if getattr(options, name) is not None
    }
    clip = None if options.video is None else Video.open(options.video, bit_depth=8)
    with ExitStack() as stack:
        generator = stack.enter_context(Generator(options.model, **_work(options)))
        if options.plan:
            sizes = {name: getattr(options, name) for name in ("height", "width", "num_frames")}
            guided = options.guidance_scale
            plan = generator.plan(**sizes, guidance_scale=guided)
            steps = _retime_and_enlarge(options, stack)
            return _show_plans(options, [plan], (plan.height, plan.width), steps)
        with _warnings_as_lines():
            video = generator.generate(
                options.prompt,
                **pictures,
                video=clip,
                **{name: getattr(options, name) for name in GENERATE_OPTIONS},
                callback_on_step_end=_step_display(options),
            )
        kept = Keep()
        steps = [(generator, kept), *_retime_and_enlarge(options, stack)]
        status = _save(options, video, steps, seed=generator.last_seed)
        if options.preview is not None:
            write_png(options.preview, contact_sheet(kept.pictures, 4), overwrite=options.overwrite)
        return status


def run(options: argparse.Namespace) -> int:
    """`fastvid run`: interpolation first, while the frames are small."""
    if options.interpolate is None and options.fps is None and options.upscale is None:
        raise InputError("run: needs --interpolate N or --fps RATE, --upscale N, or both")
    video = _open(options)
    with ExitStack() as stack:
        return _save(options, video, _retime_and_enlarge(options, stack))


def demo(options: argparse.Namespace) -> int:
    """`fastvid demo`."""
    from fastvid import demo

    result = demo.run(
        options.output,
        size=demo.parse_size(options.size),
        seconds=options.seconds,
        seed=options.seed,
        picture=options.picture,
        interpolator=options.interpolate_model,
        upscaler=options.upscale_model,
        generator=options.generate_model,
        overwrite=options.overwrite,
        log=None if options.quiet or options.json else _note,
        **_device(options),
    )
    if options.json:
        _print_json(result.to_dict())
    elif not options.quiet:
        print(result.to_text())
    return 0


def models(options: argparse.Namespace) -> int:
    """`fastvid models`."""
    rows = [_model_rows.row(name, path, options.verify) for name, path in shipped().items()]
    if options.json:
        _print_json({"models": rows})
    elif not rows:
        print("no models are installed")
    else:
        for row in rows:
            print("\n  ".join(_model_rows.lines(row)))
    return 0


def engines(options: argparse.Namespace) -> int:
    """`fastvid engines`."""
    from fastvid.backends import tensorrt
    from fastvid.backends.tensorrt._store import default_folder

    folder = options.cache or str(default_folder())
    if options.clear:
        freed = tensorrt.clear(options.cache)
        if options.json:
            _print_json({"folder": folder, "freed": freed})
        elif not options.quiet:
            print(f"{freed / 1e6:.1f} MB freed in {folder}")
        return 0
    found = tensorrt.cached_engines(options.cache)
    if options.json:
        _print_json({"folder": folder, "engines": [one.to_dict() for one in found]})
        return 0
    total = sum(one.size for one in found) / 1e6
    print(f"{folder}: {len(found)} engines, {total:.1f} MB")
    for one in found:
        print(f"  {one.to_text()}")
    return 0


def bench(options: argparse.Namespace) -> int:
    """`fastvid bench`."""
    from fastvid.bench import _command

    return _command.bench(options)


def doctor(options: argparse.Namespace) -> int:
    """`fastvid doctor`."""
    from fastvid import doctor

    report = doctor.collect()
    if options.json:
        _print_json(report.to_dict())
    elif not options.quiet:
        print(report.to_text())
    return report.exit_status


def _retime_and_enlarge(options: argparse.Namespace, stack: ExitStack) -> list[tuple[Model, Stage]]:
    """The models of --interpolate or --fps, and of --upscale, which `stack` closes."""
    steps: list[tuple[Model, Stage]] = []
    if options.interpolate is not None or options.fps is not None:
        interpolator = stack.enter_context(
            Interpolator(options.interpolate_model, **_work(options))
        )
        stage = interpolator.stage(
            factor=options.interpolate,
            fps=options.fps,
            scene_cuts=not options.no_scene_cuts,
            duplicates=options.duplicates,
        )
        steps.append((interpolator, stage))
    if options.upscale is not None:
        upscaler = stack.enter_context(
            Upscaler(
                options.upscale_model,
                scale=options.upscale,
                tile=_tile(options.tile),
                **_work(options),
            )
        )
        steps.append((upscaler, upscaler))
    return steps


class Keep:
    """A stage that changes nothing and keeps some of the frames, for a contact sheet."""

    name = "preview"

    def __init__(self, most: int = 16) -> None:
        self.pictures: list[RgbImage] = []
        self._most = most

    def transform(self, info: VideoInfo) -> VideoInfo:
        """The same."""
        return info

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        """The same frames, evenly chosen ones kept."""
        self.pictures = []
        count = max(info.num_frames or 1, 1)
        chosen = {round(i * (count - 1) / max(self._most - 1, 1)) for i in range(self._most)}
        for number, frame in enumerate(frames):
            if number in chosen:
                self.pictures.append(eight_bits(frame.image).copy())
            yield frame


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Warnings to the user, such as of words that are not known, without a place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        _note(f"fastvid: warning: {warning.message}")


def _step_display(options: argparse.Namespace) -> Any:
    """A callback that counts the steps on a terminal; None elsewhere."""
    if options.quiet or not sys.stderr.isatty():
        return None

    def show(generator: Generator, step: int, timestep: float, values: dict[str, Any]) -> None:
        print(f"\rdrawing: step {step + 1} ", end="\r", file=sys.stderr, flush=True)

    return show


def _open(options: argparse.Namespace) -> Video:
    return Video.open(
        options.input,
        fps=options.input_fps,
        bit_depth=8 if options.to_8bit else None,
        alpha="drop" if options.drop_alpha else "refuse",
        strict=options.strict,
        stream=options.stream,
    )


def _device(options: argparse.Namespace) -> dict[str, Any]:
    chosen = {
        name: getattr(options, name) for name in ("device", "backend", "precision", "threads")
    }
    if options.engine_size and options.backend != "tensorrt":
        raise InputError(
            f"--engine-size: needs --backend tensorrt, got --backend {options.backend}",
        )
    if options.backend == "tensorrt":
        from fastvid.backends.tensorrt import EngineOptions

        sizes = tuple(options.engine_size) if options.engine_size else None
        progress = None if options.quiet else _engine_display()
        chosen["backend"] = EngineOptions(sizes=sizes, progress=progress)
    return chosen


def _engine_display() -> Callable[[EngineProgress], None]:
    """Tells of builds on standard error: on a terminal in one line, elsewhere each phase once."""
    terminal, told = sys.stderr.isatty(), ""

    def show(progress: EngineProgress) -> None:
        nonlocal told
        phase = f"{progress.graph} {progress.size} {progress.phase}"
        if terminal:
            print(f"\r\033[KTensorRT: {progress.to_text()}", end="\r", file=sys.stderr, flush=True)
        elif phase != told:
            print(f"TensorRT: {progress.to_text()}", file=sys.stderr, flush=True)
        told = phase

    return show


def _work(options: argparse.Namespace) -> dict[str, Any]:
    more = {name: getattr(options, name) for name in ("low_memory", "cuda_graphs")}
    return _device(options) | more


def _tile(text: str) -> int | str | None:
    if text == "none":
        return None
    return int(text) if text.isdecimal() else text


def _show_plans(
    options: argparse.Namespace,
    plans: list[MemoryPlan],
    size: tuple[int, int],
    steps: Sequence[tuple[Model, Stage]],
) -> int:
    """What each step needs for the frames that reach it; the status says whether all fit."""
    height, width = size
    for model, stage in steps:
        assert not isinstance(model, Generator)
        plans.append(model.plan(height, width))
        if stage is model and isinstance(model, Upscaler):
            height, width = height * model.scale, width * model.scale
    fits = all(plan.fits for plan in plans)
    if options.json:
        _print_json({"fits": fits, "plans": [plan.to_dict() for plan in plans]})
    else:
        print("\n".join(plan.to_text() for plan in plans))
    return 0 if fits else OutOfMemoryError.exit_code


def _save(
    options: argparse.Namespace,
    video: Video,
    steps: Sequence[tuple[Model, Stage]],
    **facts: object,
) -> int:
    source = video.info
    if options.plan:
        return _show_plans(options, [], (source.height, source.width), steps)
    for _, stage in steps:
        video = video.through(stage)
    output = options.output
    if output is None:
        output = default_output(options.input, video, source.size)
    chosen = {
        name: getattr(options, name)
        for name in ("codec", "quality", "effort")
        if getattr(options, name) is not None
    }
    display = None if options.quiet else ProgressDisplay(sys.stderr)
    try:
        result = Pipeline().run(
            video,
            output,
            audio="drop" if options.no_audio else "copy",
            subtitles="drop" if options.no_subtitles else "copy",
            overwrite=options.overwrite,
            progress=display,
            **chosen,
        )
    finally:
        if display is not None:
            display.close()
    _summarise(options, video, result, [model for model, _ in steps], facts)
    return 0


def _summarise(
    options: argparse.Namespace,
    video: Video,
    result: RunResult,
    used: Sequence[Model],
    facts: dict[str, object],
) -> None:
    info = video.info
    if options.json:
        extra = {
            "input": options.input,
            "width": info.width,
            "height": info.height,
            "fps": str(info.fps),
            "models": [model.report().to_dict() for model in used],
            **facts,
        }
        _print_json(result.to_dict() | extra)
        return
    for warning in result.warnings:
        print(f"fastvid: warning: {warning}", file=sys.stderr)
    if options.quiet:
        return
    rate = result.frames_out / result.elapsed if result.elapsed else 0.0
    tracks = [
        f"{count} {kind} track{'s' if count > 1 else ''}"
        for kind, count in (("audio", result.audio_tracks), ("subtitle", result.subtitle_tracks))
        if count
    ]
    print(
        f"{result.path}: {info.width}x{info.height}, {float(info.fps):.6g} fps, "
        f"{result.frames_out} frames, {float(result.duration):.3f} s"
        + "".join(f", {track}" for track in tracks)
    )
    print(
        f"{result.elapsed:.1f} s, {rate:.1f} frames per second; "
        f"{split(result.busy, max(1, result.frames_out))}"
    )
    for model in used:
        print(model.report().to_text().splitlines()[0])
    for name, value in facts.items():
        print(f"{name} {value}")


def default_output(path: str, video: Video, source_size: tuple[int, int]) -> str:
    """The name beside the input that says what was done, such as `clip-60fps-2x.mp4`.

    The container stays where it can be written and is .mp4 otherwise.
    """
    stem, suffix = os.path.splitext(path.rstrip("/" + os.sep))
    if suffix.lower() not in (*FORMATS, ".y4m"):
        suffix = ".mp4"
    if any(stage.name == "restore" for stage in video.stages):
        stem += "-restored"
    if any(stage.name == "interpolate" for stage in video.stages):
        stem += f"-{float(video.info.fps):.5g}fps"
    if video.info.width != source_size[0]:
        stem += f"-{video.info.width // source_size[0]}x"
    return stem + suffix


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2), flush=True)
