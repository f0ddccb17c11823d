"""LTX-Video from a folder of diffusers to frames, beside diffusers' own pipelines."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers", reason="needs diffusers")
pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("onnxruntime")

import ltx_folders  # noqa: E402
import onnx  # noqa: E402

from fastvid import Generator  # noqa: E402
from fastvid.bundle import Bundle  # noqa: E402
from fastvid.errors import InputError  # noqa: E402
from fastvid.metrics import psnr  # noqa: E402
from fastvid_export import export, large_graphs  # noqa: E402
from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.importers import ImportOptions, ltx_graphs  # noqa: E402
from fastvid_export.importers import diffusers as importer  # noqa: E402

_PROMPT, _NEGATIVE, _SEED = "a red cat moves left", "snow", 7
_SIZE = {"height": 32, "width": 64, "num_frames": 9}
_STEPS = {"num_inference_steps": 3, "guidance_scale": 4.0, "frame_rate": 24}
_PICTURE = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)


class _Source:
    """A pipeline of diffusers, and its folder."""

    def __init__(self, path, kind, vae):
        self.path = path
        self.pipeline = ltx_folders.ltx(path, kind, vae)


class _Model:
    """The pipeline, and the bundle made of its folder."""

    def __init__(self, source):
        self.pipeline = source.pipeline
        self.folder = export(source.path, output=source.path.parent / "made")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return _Source(tmp_path_factory.mktemp("ltx") / "Source", "LTXPipeline", ltx_folders.VAE)


@pytest.fixture(scope="module")
def text_model(source):
    return _Model(source)


@pytest.fixture(scope="module")
def later_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("ltx-later") / "Source"
    return _Model(_Source(path, "LTXConditionPipeline", ltx_folders.TIMED))


def _ours(folder, **options):
    """Latents after each step, and frames."""
    steps = []
    with Generator(folder, device="cpu", threads=1) as model:
        video = model.generate(
            _PROMPT,
            negative_prompt=_NEGATIVE,
            seed=_SEED,
            noise="torch-cpu",
            callback_on_step_end=lambda g, i, t, given: steps.append(given["latents"].copy()),
            **_SIZE,
            **_STEPS,
            **options,
        )
        return steps, video.frames()


def _theirs(pipeline, **options):
    steps = []

    def keep(owner, index, timestep, given):
        steps.append(given["latents"].clone())
        return given

    if "image" in options:
        from PIL import Image

        options["image"] = Image.fromarray(options["image"])
    frames = pipeline(
        prompt=_PROMPT,
        negative_prompt=_NEGATIVE,
        generator=torch.Generator("cpu").manual_seed(_SEED),
        output_type="np",
        callback_on_step_end=keep,
        **_SIZE,
        **_STEPS,
        **options,
    ).frames[0]
    return steps, np.rint(np.asarray(frames) * 255).astype(np.uint8)


def _compare(ours, theirs):
    steps, frames = ours
    packed, expected = theirs
    assert len(steps) == len(packed) == _STEPS["num_inference_steps"]
    for found, tokens in zip(steps, packed, strict=True):
        latents = tokens.transpose(1, 2).reshape(found.shape).numpy()
        assert np.abs(found - latents).max() <= 1e-4 * np.abs(latents).max()
    assert frames.shape == expected.shape
    assert expected.std() > 10
    assert psnr(frames, expected) >= 50


def test_text_to_video(text_model):
    options = {"guidance_rescale": 0.3}
    _compare(_ours(text_model.folder, **options), _theirs(text_model.pipeline, **options))


def test_image_to_video(text_model):
    pipeline = diffusers.LTXImageToVideoPipeline(**text_model.pipeline.components)
    pipeline.set_progress_bar_config(disable=True)
    options = {"image": _PICTURE}
    _compare(_ours(text_model.folder, **options), _theirs(pipeline, **options))


@pytest.mark.slow
# Of diffusers, which gives NumPy a tensor.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("pictures", [{}, {"image": _PICTURE}])
def test_later_versions(later_model, pictures):
    options = {"decode_timestep": 0.05, "decode_noise_scale": 0.3, **pictures}
    _compare(_ours(later_model.folder, **options), _theirs(later_model.pipeline, **options))


@pytest.mark.slow
def test_large_weights_stay_in_their_files(source, text_model, tmp_path, monkeypatch):
    monkeypatch.setattr(ltx_graphs, "LARGE", 0)
    monkeypatch.setattr(large_graphs, "INLINE", 64)
    folder = export(source.path, output=tmp_path / "large")
    assert list(folder.glob("*.data"))
    small, large = (_ours(path, image=_PICTURE) for path in (text_model.folder, folder))
    assert psnr(large[1], small[1]) >= 60


def test_frames_stream_and_are_those_of_the_video(text_model):
    with Generator(text_model.folder, device="cpu", threads=1) as model:
        options = {"seed": 3, **_SIZE, **_STEPS}
        pieces = list(model.stream(_PROMPT, **options))
        video = model.generate(_PROMPT, **options)
        assert len(pieces) > 1
        np.testing.assert_array_equal(np.concatenate(pieces), video.frames())
        np.testing.assert_array_equal(video.frames(), video.frames())


def test_a_clip_is_continued_from_its_end(text_model):
    clip = np.repeat(_PICTURE[None], 9, axis=0)
    shown = []
    with Generator(text_model.folder, device="cpu", threads=1) as model:
        options = _SIZE | _STEPS | {"num_frames": 21}
        model.generate(
            _PROMPT,
            video=clip,
            seed=1,
            callback_on_step_end=lambda g, i, t, given: shown.append(given["latents"].copy()),
            **options,
        )
    # The first latents are the clip's in every step, and the rest is drawn.
    assert shown[0].shape == (1, 8, 6, 8, 16)
    for latents in shown[1:]:
        np.testing.assert_array_equal(latents[:, :, :2], shown[0][:, :, :2])
        assert (latents[:, :, 2:] != shown[0][:, :, 2:]).any()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"height": 40}, "height: argument must be a multiple of 32.*are 32 and 64"),
        ({"width": 100}, "width: argument must be a multiple of 32.*are 96 and 128"),
        ({"num_frames": 12}, r"num_frames: number of frames must be 4k \+ 1.*are 9 and 13"),
        ({"last_image": _PICTURE, "image": _PICTURE}, "last_image: model .* must be trained"),
        ({"flow_shift": 3.0}, "flow_shift: argument must be None for a model that shifts by size"),
        ({"decode_timestep": 0.1}, "decode_timestep: argument is for decoders that take"),
        ({"image_cond_noise_scale": 0.1}, "image_cond_noise_scale: argument is for models"),
        ({"guidance_rescale": 2.0}, "guidance_rescale: argument must be from 0"),
    ],
)
def test_bad_arguments(text_model, options, problem):
    with Generator(text_model.folder, device="cpu", threads=1) as model:
        with pytest.raises(InputError) as caught:
            model.generate(_PROMPT, **_SIZE | options)
        caught.match(f"(?s){problem}")


def test_the_bundle_says_what_it_is(text_model):
    bundle = Bundle.load(text_model.folder)
    assert bundle.name == "made"
    assert "differs by version" in bundle.licence
    assert bundle.size_rule.multiple_of == 32
    assert [name for name in bundle.graphs if name.startswith("decoder")] == [
        "decoder_0", "decoder_1", "decoder_2",
    ]  # fmt: skip
    assert max(figure.value for figure in bundle.quality if figure.unit != "levels") < 1e-5


def test_attention_and_rotary_embedding_are_one_node_each(text_model):
    model = onnx.load(str(text_model.folder / "transformer.onnx"))
    kinds = [node.op_type for node in model.graph.node]
    # Two layers, each with attention to itself and to the prompt.
    assert kinds.count("Attention") == kinds.count("QkNormRope") == 4
    assert not any(kind.startswith("Scatter") for kind in kinds)


def _changed(source, target, component, **changes):
    shutil.copytree(source, target)
    path = target / component
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize(
    ("component", "changes", "problem"),
    [
        ("vae/config.json", {"encoder_causal": False}, "encoder_causal must be True"),
        ("vae/config.json", {"magic": 1}, "options must be .*magic=1"),
        ("vae/config.json", {"spatial_compression_ratio": 8}, "vae: encoder and decoder must"),
        ("transformer/config.json", {"qk_norm": "layer_norm"}, "qk_norm must be"),
        ("transformer/config.json", {"patch_size": 2}, "patch_size must be 1"),
        ("transformer/config.json", {"caption_channels": 7}, "transformer: caption_channels must"),
        ("text_encoder/config.json", {"model_type": "umt5"}, "model_type must be 't5'"),
        ("scheduler/scheduler_config.json", {"invert_sigmas": 3}, "invert_sigmas"),
        ("scheduler/scheduler_config.json", {"magic": 1}, "'magic'"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "vae must be of class"),
    ],
)
def test_unsupported_configurations(source, tmp_path, component, changes, problem):
    folder = _changed(source.path, tmp_path / "changed", component, **changes)
    with pytest.raises((InputError, TypeError), match=problem):
        importer.build(folder, tmp_path / "out", ImportOptions("x"), print)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_shape_are_all_named(source, tmp_path):
    folder = _changed(source.path, tmp_path / "changed", "transformer/config.json", num_layers=1)
    with pytest.raises(CheckpointError, match=r"unexpected: transformer_blocks\.1\."):
        importer.build(folder, tmp_path / "out", ImportOptions("x"), print)
    assert not (tmp_path / "out").exists()
