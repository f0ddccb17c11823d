"""LTX-Video's autoencoder, by pieces, against the whole clip at once in diffusers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers", reason="needs diffusers")

from fastvid_export.models.ltx_decoder import (  # noqa: E402
    LtxDecoderOptions,
    LtxDecoderVae,
    stages,
)
from fastvid_export.models.ltx_encoder import (  # noqa: E402
    LtxEncoderFirst,
    LtxEncoderNext,
    LtxEncoderOptions,
    LtxEncoderVae,
)

_SHARED = {"latent_channels": 8, "patch_size_t": 1, "encoder_causal": True, "decoder_causal": False}
# The layouts of the published versions, and one that looks at no later frame.
_LAYOUTS = {
    "0.9.0": {
        "block_out_channels": (8, 8, 16, 16), "decoder_block_out_channels": (8, 8, 16, 16),
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1, 2, 1, 1, 1),
        "spatio_temporal_scaling": (True, True, False, False),
        "decoder_spatio_temporal_scaling": (True, True, False, False),
        "patch_size": 2, "scaling_factor": 1.5,
    },
    "0.9.1": {
        "block_out_channels": (8, 8, 16, 16), "decoder_block_out_channels": (8, 16, 32),
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1, 1, 2, 1),
        "spatio_temporal_scaling": (True, True, True, False),
        "decoder_spatio_temporal_scaling": (True,) * 3,
        "decoder_inject_noise": (True, True, False, False), "upsample_residual": (True,) * 3,
        "upsample_factor": (2,) * 3, "timestep_conditioning": True, "patch_size": 1,
    },
    "0.9.5": {
        "block_out_channels": (8, 16, 32, 64, 64), "decoder_block_out_channels": (8, 16, 32),
        "down_block_types": ("LTXVideo095DownBlock3D",) * 4, "layers_per_block": (1,) * 5,
        "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        "decoder_layers_per_block": (1, 1, 2, 1), "spatio_temporal_scaling": (True,) * 4,
        "decoder_spatio_temporal_scaling": (True,) * 3, "decoder_inject_noise": (False,) * 4,
        "upsample_residual": (True,) * 3, "upsample_factor": (2,) * 3,
        "timestep_conditioning": True, "patch_size": 2, "spatial_compression_ratio": 16,
        "temporal_compression_ratio": 8,
    },
    "causal": {
        "block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5,
        "spatio_temporal_scaling": (True, True, False, False),
        "decoder_spatio_temporal_scaling": (True, True, False, False),
        "patch_size": 1, "decoder_causal": True,
    },
}  # fmt: skip
_TIME, _SHARE = 0.05, 0.3


def _layouts():
    """One that has all there is by default; the others are slow together."""
    return [n if n == "0.9.1" else pytest.param(n, marks=pytest.mark.slow) for n in _LAYOUTS]


@pytest.fixture(scope="module", params=_layouts())
def networks(request):
    """diffusers' autoencoder with random weights and statistics, and ours with the same."""
    torch.manual_seed(0)
    config = _SHARED | _LAYOUTS[request.param]
    theirs = diffusers.AutoencoderKLLTXVideo(**config).eval()
    theirs.use_framewise_encoding = theirs.use_framewise_decoding = False
    with torch.no_grad():
        theirs.latents_mean.normal_()
        theirs.latents_std.uniform_(0.5, 2)
        for name, parameter in theirs.named_parameters():
            if "per_channel_scale" in name:
                parameter.normal_()
    full = theirs.config
    ours = [("decoder", _decoder(full)), ("encoder", _encoder(full))]
    for part, network in ours:
        other = "encoder" if part == "decoder" else "decoder"
        weights = {k: v for k, v in theirs.state_dict().items() if not k.startswith(other)}
        network.load_state_dict(weights, assign=True)
    return theirs, *(network.eval() for _, network in ours)


def _decoder(config):
    named = (
        "block_out_channels", "layers_per_block", "spatio_temporal_scaling", "inject_noise",
    )  # fmt: skip
    same = (
        "latent_channels", "upsample_residual", "upsample_factor", "timestep_conditioning",
        "patch_size", "scaling_factor",
    )  # fmt: skip
    options = {name: tuple(config[f"decoder_{name}"]) for name in named}
    options |= {name: config[name] for name in same}
    with torch.device("meta"):
        return LtxDecoderVae(LtxDecoderOptions(**options, causal=config.decoder_causal))


def _encoder(config):
    same = (
        "latent_channels", "block_out_channels", "layers_per_block", "spatio_temporal_scaling",
        "downsample_type", "patch_size",
    )  # fmt: skip
    shuffled = config.down_block_types[0] == "LTXVideo095DownBlock3D"
    with torch.device("meta"):
        return LtxEncoderVae(
            LtxEncoderOptions(**{name: config[name] for name in same}, shuffled=shuffled)
        )


def _stage(stage, pieces, total, given):
    """A stage over pieces with their first frame's number: what it gives, and its length."""
    first, start = pieces[0]
    caches = [torch.zeros(1, channels, 2, *first.shape[-2:]) for channels in stage.caches()]
    found, number = [], 0
    while True:
        piece = pieces[number][0] if number < len(pieces) else torch.zeros_like(first)
        place = start + number * stage.shape.frames
        out, position, *caches = stage(piece, torch.tensor([place, total]), *given(number), *caches)
        number += 1
        begin, length = position.tolist()
        end = begin + out.shape[0 if stage.last else 2]
        if end > 0:
            found.append((out, begin))
        if end >= length:
            return found, length


def _decode(network, latents, noise, added):
    pieces = [(latents[:, :, i : i + 1], i) for i in range(latents.shape[2])]
    total = len(pieces)
    for number, stage in enumerate(stages(network)):

        def given(index, stage=stage, number=number):
            rest = [torch.tensor([_TIME])] if stage.timed else []
            if stage.timed and stage.first:
                at = min(index, latents.shape[2] - 1)
                rest += [noise[:, :, at : at + 1], torch.tensor([_SHARE])]
            return rest + ([added[number]] if stage.shape.sites else [])

        pieces, total = _stage(stage, pieces, total, given)
    frames, begin = torch.cat([piece for piece, _ in pieces]), pieces[0][1]
    return frames[-begin : total - begin]


@pytest.mark.parametrize("count", [1, 4])
def test_decoding_by_pieces_is_decoding_at_once(networks, count, monkeypatch):
    theirs, ours, _ = networks
    torch.manual_seed(count)
    latents, noise = torch.randn(2, 1, 8, count, 2, 3)
    shape = (-1, 1, 1, 1)
    whole = latents * theirs.latents_std.view(shape) / theirs.config.scaling_factor
    whole = whole + theirs.latents_mean.view(shape)
    timed = theirs.config.timestep_conditioning
    if timed:
        whole = (1 - _SHARE) * whole + _SHARE * noise
    drawn, draw = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    with torch.no_grad():
        expected = theirs.decode(whole, torch.tensor([_TIME]) if timed else None).sample[0]
        added = []
        for stage in stages(ours):
            sites = [drawn.pop(0) for _ in range(stage.shape.sites)]
            added.append(torch.stack(sites) if sites else None)
        found = _decode(ours, latents, noise, added)
    assert not drawn
    expected = (0.5 * expected + 0.5).clamp(0, 1).mul(255).permute(1, 2, 3, 0)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 0.51


@pytest.mark.parametrize("count", [1, 3])
def test_encoding_by_pieces_is_encoding_at_once(networks, count):
    theirs, _, ours = networks
    torch.manual_seed(count)
    step, side = theirs.temporal_compression_ratio, theirs.spatial_compression_ratio
    frames = torch.randint(0, 256, (1 + step * (count - 1), 2 * side, 3 * side, 3)).byte()
    noise = torch.randn(1, 8, count, 2, 3)
    with torch.no_grad():
        spread = theirs.encode(frames.permute(3, 0, 1, 2)[None] / 127.5 - 1).latent_dist
        mean, deviation = (x.view(-1, 1, 1, 1) for x in (theirs.latents_mean, theirs.latents_std))
        expected = (spread.mean + spread.std * noise - mean) / deviation
        latents, *caches = LtxEncoderFirst(ours)(frames[:1], noise[:, :, :1])
        found = [latents]
        for i in range(1, count):
            piece = frames[1 + (i - 1) * step : 1 + i * step]
            latents, *caches = LtxEncoderNext(ours)(piece, noise[:, :, i : i + 1], *caches)
            found.append(latents)
    limit = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(torch.cat(found, 2), expected, rtol=0, atol=limit)
