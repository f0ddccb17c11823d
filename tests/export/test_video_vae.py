"""The video autoencoder: causal, the same in pieces as whole, in torch and in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastvid_export import onnx  # noqa: E402
from fastvid_export.models.decoder_graph import DecoderFirst, DecoderNext  # noqa: E402
from fastvid_export.models.video_vae import (  # noqa: E402
    EncoderFirst,
    EncoderNext,
    VideoVae,
    VideoVaeOptions,
)

OPTIONS = VideoVaeOptions(
    latent_channels=4, encoder_quarter=8, encoder_eighth=8, encoder_quarter_blocks=1,
    encoder_eighth_blocks=1, decoder_half=8, decoder_quarter=8, decoder_eighth=8,
    decoder_half_blocks=1, decoder_quarter_blocks=1, decoder_eighth_blocks=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    torch.manual_seed(0)
    vae = VideoVae(OPTIONS)
    vae.latents_mean.normal_()
    vae.latents_variance.uniform_(0.5, 2.0)
    return vae.eval().requires_grad_(False)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (5, 32, 48), (17, 64, 64)])
def test_sizes(vae: VideoVae, frames: int, height: int, width: int) -> None:
    clip = torch.rand(2, frames, 3, height, width)
    latents = vae.encode(clip)
    assert latents.shape == (2, (frames + 3) // 4, 4, height // 8, width // 8)
    assert vae.decode(latents).shape == clip.shape


def test_an_image_is_encoded_like_the_first_frame_of_a_clip(vae: VideoVae) -> None:
    clip = torch.rand(2, 9, 3, 32, 32)
    torch.testing.assert_close(vae.encode(clip[:, :1]), vae.encode(clip)[:, :1])


def test_the_future_changes_nothing(vae: VideoVae) -> None:
    clip = torch.rand(1, 13, 3, 32, 32)
    other = clip.clone()
    other[:, 9:] = torch.rand(1, 4, 3, 32, 32)
    before, after = vae.encode(clip), vae.encode(other)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])
    shown, changed = vae.decode(before), vae.decode(after)
    torch.testing.assert_close(shown[:, :9], changed[:, :9])


def test_clips_of_a_batch_do_not_mix(vae: VideoVae) -> None:
    latents = torch.randn(3, 4, 4, 4, 4)
    together = vae.decode(latents)
    for i in range(3):
        torch.testing.assert_close(vae.decode(latents[i : i + 1]), together[i : i + 1])


def test_decoding_group_by_group_equals_decoding_the_whole(vae: VideoVae) -> None:
    decoder, latents = vae.decoder, torch.randn(1, 5, 4, 4, 6)
    whole = decoder(latents)
    features, caches = decoder.trunk(latents[:, 0], 1, None)
    frames = [decoder.first_frame(features)]
    shapes = decoder.cache_shapes(4, 6)
    for i in range(1, 5):
        assert [tuple(cache.shape) for cache in caches] == shapes
        features, caches = decoder.trunk(latents[:, i], 1, caches)
        frames.append(decoder.next_frames(features)[0])
    torch.testing.assert_close(torch.cat(frames)[None], whole, rtol=1e-5, atol=1e-5)


def pair(
    names: tuple[str, str], modules: tuple[torch.nn.Module, torch.nn.Module],
    source: onnx.Port, result: onnx.Port, pieces: list[np.ndarray], shapes: list[tuple[int, ...]],
) -> list[np.ndarray]:  # fmt: skip
    """Exports a first graph and its next, and runs them over the pieces."""
    caches = [
        onnx.Port(f"cache_{i}", "float32", _varying(shape, i)) for i, shape in enumerate(shapes)
    ]
    after = [onnx.Port(f"next_{port.name}", "float32", port.shape) for port in caches]
    zeros = {f"cache_{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}

    def varied(port: onnx.Port, size: int) -> onnx.Port:
        return onnx.Port(port.name, port.dtype, (size, *port.shape[1:]))

    plans = (
        onnx.GraphPlan(
            names[0], modules[0], (varied(source, len(pieces[0])),),
            (varied(result, 1), *caches), {"random": [{source.name: pieces[0]}]},
        ),
        onnx.GraphPlan(
            names[1], modules[1], (varied(source, len(pieces[1])), *caches),
            (varied(result, 4 if result.dtype == "uint8" else 1), *after),
            {"random": [{source.name: pieces[1]} | zeros]},
        ),
    )  # fmt: skip
    run_first, run_next = (onnx.Runner(onnx.export(plan).data) for plan in plans)
    state = run_first({source.name: pieces[0]})
    results = [state.pop(result.name)]
    for piece in pieces[1:]:
        inputs = {name.removeprefix("next_"): value for name, value in state.items()}
        state = run_next({source.name: piece} | inputs)
        results.append(state.pop(result.name))
    return results


def _varying(shape: tuple[int, ...], number: int) -> tuple[int | str, ...]:
    """Of the encoder's caches the last two axes are sizes, of the decoder's the middle ones."""
    height, width = f"h{number}", f"w{number}"
    return (1, height, width, shape[3]) if shape[0] == 1 else (*shape[:2], height, width)


LATENTS = onnx.Port("latents", "float32", (1, 4, 1, "h", "w"))
FRAMES = onnx.Port("frames", "uint8", (1, "8*h", "8*w", 3))


def test_the_exported_decoder_shows_what_torch_decodes(vae: VideoVae) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 5, 6, 4), np.float32)
    frames = pair(
        ("decoder_first", "decoder_next"), (DecoderFirst(vae), DecoderNext(vae)),
        LATENTS, FRAMES, [latents[:, :, i : i + 1] for i in range(5)],
        [(1, h, w, n * c) for n, c, h, w in vae.decoder.cache_shapes(6, 4)],
    )  # fmt: skip
    decoded = vae.decode(torch.from_numpy(latents).transpose(1, 2))[0]
    expected = decoded.mul(255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(np.concatenate(frames).astype(int) - expected).max() <= 1


def test_the_exported_encoder_makes_the_latents_of_torch(vae: VideoVae) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (13, 32, 48, 3), np.uint8)
    latents = pair(
        ("encoder_first", "encoder_next"), (EncoderFirst(vae), EncoderNext(vae)),
        FRAMES, LATENTS, [frames[:1], frames[1:5], frames[5:9], frames[9:]],
        vae.encoder.cache_shapes(4, 6),
    )  # fmt: skip
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255)[None]
    expected = vae.encode(clip).transpose(1, 2).numpy()
    np.testing.assert_allclose(np.concatenate(latents, 2), expected, rtol=0, atol=1e-5)


def test_training_follows_the_scale_of_the_latents() -> None:
    torch.manual_seed(0)
    vae, clip = VideoVae(OPTIONS).train(), torch.rand(2, 5, 3, 16, 16)
    with torch.no_grad():
        for _ in range(400):
            latents, divergence = vae.sample(clip)
    assert float(divergence) > 0
    vae.eval()
    with torch.no_grad():
        latents, _ = vae.sample(clip.repeat(64, 1, 1, 1, 1))
        normalised = vae.normalised(latents).transpose(1, 2).transpose(0, 1).flatten(1)
        torch.testing.assert_close(normalised.mean(1), torch.zeros(4), rtol=0, atol=0.15)
        torch.testing.assert_close(normalised.var(1), torch.ones(4), rtol=0, atol=0.2)
        torch.testing.assert_close(vae.raw(vae.normalised(latents)), latents)
        kept = vae.latents_mean.clone()
        vae.sample(torch.rand(1, 1, 3, 16, 16))
    assert torch.equal(vae.latents_mean, kept)
