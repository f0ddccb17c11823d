"""`Generator`, with a model of a few numbers whose every input shows in its output."""

from __future__ import annotations

import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

import generators

from fastvid import Generator, Video, schedulers
from fastvid.bundle import Bundle
from fastvid.errors import (
    CancelledError,
    InputError,
    InputTypeError,
    ManifestError,
    NumericError,
    UnsupportedModelError,
)

PROMPT = "a red circle moves left"
PICTURE = np.full((16, 24, 3), 200, np.uint8)
CLIP = np.stack([np.full((16, 24, 3), 20 * i, np.uint8) for i in range(9)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    generators.bundle(path)
    return path


@pytest.fixture(scope="module")
def generator(folder: Path) -> Any:
    with Generator(folder, threads=1) as model:
        yield model


def frames(generator: Generator, prompt: str = PROMPT, **options: Any) -> Any:
    return generator.generate(prompt, **{"seed": 3, **options}).frames()


def test_a_video_has_the_size_rate_and_length_asked_for(generator: Generator) -> None:
    video = generator.generate(PROMPT, seed=1)
    assert (video.width, video.height, video.num_frames, video.fps) == (24, 16, 9, 8)
    assert [frame.time for frame in video] == [Fraction(i, 8) for i in range(9)]
    video = generator.generate(
        PROMPT, height=32, width=16, num_frames=13, frame_rate="30000/1001", seed=1
    )
    assert video.frames().shape == (13, 32, 16, 3)
    assert video.fps == Fraction(30000, 1001)
    assert video.duration == Fraction(13 * 1001, 30000)
    assert generator.generate(PROMPT, num_frames=1).frames().shape == (1, 16, 24, 3)


def test_the_same_seed_gives_the_same_frames_however_they_are_made(folder: Path) -> None:
    with Generator(folder, threads=1) as one, Generator(folder, threads=2) as two:
        expected = frames(one)
        np.testing.assert_array_equal(frames(two), expected)
        pieces = list(one.stream(PROMPT, seed=3))
        assert [len(piece) for piece in pieces] == [1, 4, 4]
        np.testing.assert_array_equal(np.concatenate(pieces), expected)
        video = one.generate(PROMPT, seed=3)
        np.testing.assert_array_equal(video.frames(), video.frames())
        assert not np.array_equal(frames(one, seed=4), expected)


def test_a_seed_that_was_drawn_can_be_had(generator: Generator) -> None:
    drawn = generator.generate(PROMPT).frames()
    assert generator.last_seed is not None
    np.testing.assert_array_equal(frames(generator, seed=generator.last_seed), drawn)
    generator.generate(PROMPT, seed=2**64 - 1)
    assert generator.last_seed == 2**64 - 1


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "a blue square moves right"},
        {"negative_prompt": "a blue square"},
        {"guidance_scale": 5},
        {"guidance_scale": 1},
        {"num_inference_steps": 3},
        {"scheduler": "UniPCMultistepScheduler"},
        {"image": PICTURE},
        {"image": PICTURE, "last_image": PICTURE // 2},
        {"video": CLIP},
        {"video": CLIP, "strength": 0.5},
    ],
)
def test_every_argument_shows(generator: Generator, changed: dict[str, Any]) -> None:
    assert not np.array_equal(frames(generator, **changed), frames(generator))


def test_spaces_in_a_prompt_do_not_count(generator: Generator) -> None:
    spaced = "\n a  red\tcircle moves left "
    np.testing.assert_array_equal(frames(generator, spaced), frames(generator))


def test_an_empty_negative_prompt_is_none(generator: Generator) -> None:
    np.testing.assert_array_equal(frames(generator, negative_prompt=" "), frames(generator))


def test_a_picture_is_the_first_frame(generator: Generator) -> None:
    made = frames(generator, image=PICTURE)
    assert abs(made[0].astype(int) - 200).max() <= 1
    both = frames(generator, image=PICTURE, last_image=PICTURE // 2)
    assert abs(both[0].astype(int) - 200).max() <= 1
    assert abs(both[-1].astype(int) - 100).max() <= 1


def test_a_clip_is_continued_from_its_end(generator: Generator) -> None:
    made = frames(generator, video=CLIP, num_frames=17)
    # Two latents of the four are half of what there is to draw: one is given, after the first.
    assert abs(made[0].astype(int) - CLIP[4].astype(int)).max() <= 1
    assert abs(made[4].astype(int) - CLIP[8].astype(int)).max() <= 1
    assert made.shape[0] == 17


def test_a_clip_is_redrawn_the_less_the_smaller_the_strength(generator: Generator) -> None:
    video = Video.from_frames(CLIP, 8)
    far = [
        abs(frames(generator, video=video, strength=s).astype(int) - CLIP.astype(int)).mean()
        for s in (0.25, 0.5, 1.0)
    ]
    assert far == sorted(far)
    assert far[0] > 0


def test_schedulers_can_be_given_as_objects(generator: Generator) -> None:
    own = schedulers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    np.testing.assert_array_equal(frames(generator, scheduler=own), frames(generator))
    other = schedulers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    assert not np.array_equal(frames(generator, scheduler=other), frames(generator))


def test_a_callback_sees_changes_and_stops_the_run(generator: Generator) -> None:
    seen: list[tuple[int, float]] = []

    def watch(owner: Generator, step: int, timestep: float, values: dict[str, Any]) -> Any:
        assert owner is generator
        assert values["latents"].shape == (1, 4, 3, 2, 3)
        seen.append((step, timestep))

    np.testing.assert_array_equal(frames(generator, callback_on_step_end=watch), frames(generator))
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [t for _, t in seen] == sorted((t for _, t in seen), reverse=True)

    def clear(owner: Generator, step: int, timestep: float, values: dict[str, Any]) -> Any:
        return {"latents": np.zeros_like(values["latents"])}

    assert (frames(generator, callback_on_step_end=clear) == 128).all()
    with pytest.raises(CancelledError, match="callback_on_step_end stopped at step 2"):
        frames(generator, callback_on_step_end=lambda g, step, t, v: step < 1)
    with pytest.raises(InputTypeError, match="result must be None, a dict or False to stop"):
        frames(generator, callback_on_step_end=lambda g, step, t, v: 5)
    with pytest.raises(InputError, match="latents must have shape"):
        frames(
            generator, callback_on_step_end=lambda g, s, t, v: {"latents": v["latents"][:, :, :1]}
        )


def test_cancel_from_another_thread_stops_the_run(folder: Path) -> None:
    with Generator(folder, threads=1) as model:
        inside, go_on = threading.Event(), threading.Event()

        def wait(owner: Generator, step: int, timestep: float, values: dict[str, Any]) -> None:
            inside.set()
            assert go_on.wait(30)

        caught: list[BaseException] = []

        def work() -> None:
            try:
                frames(model, callback_on_step_end=wait)
            except CancelledError as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(30)
        model.cancel()
        go_on.set()
        thread.join(30)
        assert len(caught) == 1
        assert frames(model).shape == (9, 16, 24, 3)


def test_a_generated_video_shows_itself_in_a_notebook(generator: Generator) -> None:
    video = generator.generate(PROMPT, seed=1)
    shown = video._repr_mimebundle_()
    assert shown["text/plain"] == "<Video 24x16, 8 fps, 1.12 s>"
    assert 'src="data:video/mp4;base64,' in shown["text/html"]
    assert "24x16" in shown["text/html"]
    # Showing it reads it, and leaves it to be read again.
    assert video.frames().shape == (9, 16, 24, 3)


def test_unknown_words_are_named(generator: Generator) -> None:
    with pytest.warns(UserWarning, match="prompt: the model does not know 'zebra', 'dances'"):
        generator.generate("a red zebra dances", seed=1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"prompt": ""}, InputError, "prompt: argument must say what to draw"),
        ({"prompt": " \n"}, InputError, "prompt: argument must say what to draw"),
        ({"prompt": "a " * 5_000_000}, InputError, "prompt: .* at most 10000 characters"),
        ({"prompt": "a " * 9}, InputError, "prompt: argument must have at most 8 tokens, got 9"),
        ({"prompt": None}, InputTypeError, "prompt: argument must be a str, got NoneType"),
        ({"negative_prompt": 3}, InputTypeError, "negative_prompt: argument must be a str"),
        ({"seed": -1}, InputError, "seed: argument must be from 0"),
        ({"seed": 2**64}, InputError, "seed: argument must be from 0"),
        ({"seed": 1.5}, InputTypeError, "seed: argument must be an int, got float"),
        ({"num_inference_steps": 0}, InputError, "num_inference_steps: .* from 1 to 1000, got 0"),
        ({"num_inference_steps": 10**9}, InputError, "num_inference_steps: .* from 1 to 1000"),
        ({"height": 20}, InputError, "height: .* multiple of 8 .*the nearest are 16 and 24"),
        ({"width": 10**9}, InputError, "width: .* from 16 to 256, .*the nearest is 256"),
        ({"width": -8}, InputError, "width: argument must be from 1, got -8"),
        ({"num_frames": 10}, InputError, r"4k \+ 1 and at most 33, .*the nearest are 9 and 13"),
        ({"num_frames": 10**9}, InputError, r"at most 33, got 1000000000 \(the nearest is 33"),
        ({"frame_rate": 0}, InputError, "frame_rate"),
        ({"guidance_scale": -1}, InputError, "guidance_scale: argument must be from 0 to 100"),
        ({"guidance_scale": float("nan")}, InputError, "guidance_scale: .* got nan"),
        ({"image": PICTURE / 255}, InputTypeError, "image: argument must be uint8"),
        ({"image": PICTURE[..., 0]}, InputError, r"image: argument must have shape \(H, W, 3\)"),
        ({"image": PICTURE[:15]}, InputError, "image: height must be a multiple of 8 .*resize it"),
        ({"image": PICTURE, "width": 32}, InputError, "width: argument must be that of the pict"),
        ({"last_image": PICTURE}, InputError, "last_image: argument needs image too"),
        (
            {"image": PICTURE, "last_image": PICTURE[:8]},
            InputError,
            "last_image: argument must have the size of image, 16x24, got 8x24",
        ),
        (
            {"image": PICTURE, "last_image": PICTURE, "num_frames": 5},
            InputError,
            "num_frames: argument must be more than 5 between image and last_image, got 5",
        ),
        ({"image": PICTURE, "video": CLIP}, InputError, "video: give video or image, not both"),
        ({"video": CLIP[0]}, InputError, r"video: argument must have shape \(T, H, W, 3\)"),
        ({"video": [1]}, InputTypeError, "video: argument must be a Video or a uint8 array"),
        ({"video": CLIP[:8], "strength": 1}, InputError, r"video: number of frames must be 4k \+"),
        (
            {"video": CLIP, "strength": 1, "num_frames": 13},
            InputError,
            "num_frames: argument must be that of video, 9, got 13",
        ),
        ({"video": CLIP, "num_frames": 5}, InputError, "more than 5 to continue a video, got 5"),
        ({"strength": 0.5}, InputError, "strength: argument needs video too"),
        ({"video": CLIP, "strength": 1.5}, InputError, "strength: argument must be from 0"),
        ({"video": CLIP, "strength": 0}, InputError, "strength: argument must be above 0"),
        ({"scheduler": "Nonsuch"}, InputError, "scheduler: argument must be one of FlowMatch"),
        ({"scheduler": "DDIMScheduler"}, InputError, "scheduler: argument must be one of Flow"),
        ({"scheduler": 7}, InputTypeError, "scheduler: argument must be a name or an object"),
        ({"noise": "pink"}, InputError, "noise: argument must be one of philox, torch-cpu"),
        ({"noise": 3}, InputTypeError, "noise: argument must be a str, got int"),
        ({"flow_shift": 0}, InputError, "flow_shift: argument must be from 0.001"),
        ({"flow_shift": "much"}, InputTypeError, "flow_shift: argument must be a number"),
        ({"guidance_scale_2": 3.0}, InputError, "guidance_scale_2: argument is for models of two"),
        ({"callback_on_step_end": 7}, InputTypeError, "callback_on_step_end: .* callable"),
    ],
)
def test_wrong_arguments_are_named(
    generator: Generator, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"prompt": PROMPT, **changed}
    with pytest.raises(error, match=message):
        generator.generate(**arguments)
    with pytest.raises(error, match=message):
        # Before the first piece is asked for.
        next(generator.stream(**arguments))


def test_stream_takes_the_arguments_of_generate_and_no_others(generator: Generator) -> None:
    with pytest.raises(InputTypeError, match=r"stream: arguments must be among .* got 'steps'"):
        generator.stream(PROMPT, steps=4)


def test_a_model_that_gives_no_numbers_is_caught(tmp_path: Path) -> None:
    generators.bundle(tmp_path / "nan", generators.graphs(spoil=np.nan))
    with (
        Generator(tmp_path / "nan") as model,
        pytest.raises(NumericError, match="NaN or infinity at step 1 of 4"),
    ):
        model.generate(PROMPT, seed=1)


def test_a_clip_of_nothing_but_black_is_caught(folder: Path) -> None:
    def darken(owner: Generator, step: int, timestep: float, values: dict[str, Any]) -> Any:
        return {"latents": np.full_like(values["latents"], -9)}

    with Generator(folder) as model:
        video = model.generate(PROMPT, callback_on_step_end=darken)
        with pytest.raises(NumericError, match="nothing but black"):
            video.frames()
    with Generator(folder, check_output=False) as model:
        assert not frames(model, callback_on_step_end=darken).any()


def test_a_model_without_a_part_is_refused_by_name(tmp_path: Path) -> None:
    parts = generators.graphs()
    for missing in ("text_encoder", "transformer", "decoder_first", "decoder_next"):
        rest = {name: data for name, data in parts.items() if name != missing}
        generators.bundle(tmp_path / missing, rest)
        with pytest.raises(UnsupportedModelError, match=f"must have the graph '{missing}'"):
            Generator(tmp_path / missing)
    generators.bundle(tmp_path / "none", files={"tokenizer.json": b""})
    with pytest.raises(ManifestError, match=r"files must hold 'tokenizer\.json'"):
        Generator(tmp_path / "none")
    generators.bundle(tmp_path / "broken", files={"tokenizer.json": b"{}"})
    with pytest.raises(ManifestError, match=r"tokenizer\.json is not a tokenizer"):
        Generator(tmp_path / "broken")


def test_a_model_that_knows_no_pictures_says_so(tmp_path: Path) -> None:
    generators.bundle(tmp_path / "text", generators.graphs(conditioned=False))
    with Generator(tmp_path / "text") as model:
        assert frames(model).shape == (9, 16, 24, 3)
        assert frames(model, video=CLIP, strength=0.5).shape == (9, 16, 24, 3)
        with pytest.raises(InputError, match="must be trained to start from pictures"):
            frames(model, image=PICTURE)
    parts = generators.graphs()
    del parts["encoder_first"]
    generators.bundle(tmp_path / "blind", parts)
    with (
        Generator(tmp_path / "blind") as model,
        pytest.raises(InputError, match="must have an encoder to start from pictures"),
    ):
        frames(model, image=PICTURE)


def test_a_task_of_another_kind_is_refused(folder: Path) -> None:
    from fastvid import Upscaler

    assert Bundle.load(folder).task == "generator"
    with pytest.raises(InputError, match="task must be 'upscaler'"):
        Upscaler(folder)


def test_generating_needs_no_torch(folder: Path) -> None:
    script = (
        "import sys; from fastvid import Generator; "
        f"v = Generator({str(folder)!r}).generate({PROMPT!r}, seed=1); v.frames(); "
        "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_missing_tokenizers_package_is_named(folder: Path) -> None:
    script = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from fastvid import Generator\n"
        "from fastvid.errors import BackendUnavailableError\n"
        f"try: Generator({str(folder)!r})\n"
        "except BackendUnavailableError as error: assert 'fastvid-sdk[generate]' in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_noise_of_torch(generator: Generator) -> None:
    """The latents before the first step are those that diffusers' pipelines start from."""
    torch = pytest.importorskip("torch")
    seen: list[np.ndarray] = []

    class Spy(schedulers.FlowMatchEulerDiscreteScheduler):
        def step(self, model_output: Any, timestep: Any, sample: Any, **options: Any) -> Any:
            seen.append(np.array(sample))
            return super().step(model_output, timestep, sample, **options)

    for noise in ("torch-cpu", "philox"):
        frames(generator, seed=5, num_inference_steps=1, noise=noise, scheduler=Spy(shift=1.0))
    theirs = torch.randn(seen[0].shape, generator=torch.Generator("cpu").manual_seed(5)).numpy()
    np.testing.assert_allclose(seen[0], theirs, rtol=0, atol=1e-5)
    assert np.abs(seen[0] - seen[1]).max() > 0.1


def test_shift_moves_the_noise_levels(generator: Generator) -> None:
    seen: list[float] = []

    def keep(owner: Any, step: int, timestep: float, state: Any) -> None:
        seen.append(timestep)

    frames(generator, num_inference_steps=2, flow_shift=3.0, callback_on_step_end=keep)
    assert seen == pytest.approx([1000.0, 750.0])
