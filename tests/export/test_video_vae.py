"""The video autoencoder: causal, the same in pieces as whole, in torch and in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastvid_export import onnx  # noqa: E402
from fastvid_export.models.video_vae import (  # noqa: E402
    FirstFrame,
    NextFrames,
    VideoVae,
    VideoVaeOptions,
)

OPTIONS = VideoVaeOptions(
    latent_channels=4, encoder_quarter=8, encoder_eighth=8, encoder_quarter_blocks=1,
    encoder_eighth_blocks=1, decoder_half=8, decoder_quarter=8, decoder_eighth=8,
    decoder_half_blocks=1, decoder_quarter_blocks=1, decoder_eighth_blocks=2,
)  # fmt: skip
CACHES = 4


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


def test_the_exported_pair_decodes_what_torch_decodes(vae: VideoVae) -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 4, 5, 6, 4), np.float32)
    shape = (1, 4, 1, "h", "w")
    caches = [onnx.Port(f"cache{i}", "float32", (2, 8, f"h{i}", f"w{i}")) for i in range(CACHES)]
    after = [onnx.Port(f"after{i}", "float32", port.shape) for i, port in enumerate(caches)]
    zeros = {
        f"cache{i}": np.zeros(size, np.float32)
        for i, size in enumerate(vae.decoder.cache_shapes(6, 4))
    }
    sample = {"latents": latents[:, :, :1]}
    first = onnx.GraphPlan(
        "first",
        FirstFrame(vae),
        (onnx.Port("latents", "float32", shape),),
        (onnx.Port("frames", "uint8", (1, "8*h", "8*w", 3)), *after),
        {"random": [sample]},
    )
    following = onnx.GraphPlan(
        "next",
        NextFrames(vae),
        (onnx.Port("latents", "float32", shape), *caches),
        (onnx.Port("frames", "uint8", (4, "8*h", "8*w", 3)), *after),
        {"random": [sample | zeros]},
    )
    run_first, run_next = (onnx.Runner(onnx.export(plan).data) for plan in (first, following))
    state = run_first({"latents": latents[:, :, :1]})
    frames = [state.pop("frames")]
    for i in range(1, 5):
        inputs = {f"cache{k}": state[f"after{k}"] for k in range(CACHES)}
        state = run_next({"latents": latents[:, :, i : i + 1]} | inputs)
        frames.append(state.pop("frames"))
    decoded = vae.decode(torch.from_numpy(latents).transpose(1, 2))[0]
    expected = decoded.mul(255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(np.concatenate(frames).astype(int) - expected).max() <= 1


def test_training_follows_the_scale_of_the_latents() -> None:
    torch.manual_seed(0)
    vae = VideoVae(OPTIONS).train()
    with torch.no_grad():
        for _ in range(600):
            latents, divergence = vae.sample(torch.rand(2, 5, 3, 16, 16))
    assert float(divergence) > 0
    values = latents.transpose(1, 2).transpose(0, 1).flatten(1)
    torch.testing.assert_close(vae.latents_mean, values.mean(1), rtol=0, atol=0.4)
    torch.testing.assert_close(vae.latents_variance, values.var(1), rtol=0.5, atol=0.1)
    vae.eval()
    kept = vae.latents_mean.clone()
    with torch.no_grad():
        vae.sample(torch.rand(1, 1, 3, 16, 16))
    assert torch.equal(vae.latents_mean, kept)
