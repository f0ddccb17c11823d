"""LTX-Video's transformer against diffusers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers", reason="needs diffusers")

from fastvid_export.models.ltx_transformer import (  # noqa: E402
    LtxGrid,
    LtxTransformer,
    LtxTransformerOptions,
)

_SHAPE = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 4, "attention_head_dim": 8,
    "cross_attention_dim": 32, "num_layers": 2, "caption_channels": 24,
}  # fmt: skip
_T, _H, _W, _L = 3, 2, 4, 16


def _pair(grid, **changes):
    torch.manual_seed(0)
    shape = _SHAPE | changes
    theirs = diffusers.LTXVideoTransformer3DModel(**shape).eval()
    with torch.device("meta"):
        ours = LtxTransformer(LtxTransformerOptions(**shape), grid).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs, ours


def _inputs(*, given=0):
    """Latents, timesteps, text and mask; the first `given` latent frames have no noise."""
    torch.manual_seed(1)
    latents = torch.randn(2, 8, _T, _H, _W)
    timestep = torch.full((2, _T), 700.0)
    timestep[:, :given] = 0
    mask = (torch.arange(_L) < torch.tensor([[5], [_L]])).long()
    return latents, timestep, torch.randn(2, _L, 24), mask


def _packed(latents):
    return latents.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("changes", [{}, {"norm_elementwise_affine": True, "norm_eps": 1e-4}])
def test_the_transformer_gives_what_diffusers_gives(given, changes):
    theirs, ours = _pair(LtxGrid(), **changes)
    latents, timestep, text, mask = _inputs(given=given)
    each = timestep.repeat_interleave(_H * _W, 1) if given else timestep[:, 0]
    with torch.no_grad():
        expected = theirs(
            _packed(latents), text, each, mask, num_frames=_T, height=_H, width=_W,
            rope_interpolation_scale=(8 / 24, 32, 32),
        ).sample  # fmt: skip
        found = _packed(ours(latents, timestep, text, mask, torch.tensor([24.0])))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_latents_can_lie_where_their_frames_begin():
    theirs, ours = _pair(LtxGrid(from_first=True))
    latents, timestep, text, mask = _inputs()
    axes = torch.meshgrid(*map(torch.arange, (_T, _H, _W)), indexing="ij")
    places = torch.stack(axes).flatten(1).expand(2, -1, -1) * torch.tensor([[8], [32], [32]])
    places = places.float()
    places[:, 0] = (places[:, 0] - 7).clamp(min=0) / 25
    with torch.no_grad():
        expected = theirs(_packed(latents), text, timestep[:, 0], mask, video_coords=places).sample
        found = _packed(ours(latents, timestep, text, mask, torch.tensor([25.0])))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
